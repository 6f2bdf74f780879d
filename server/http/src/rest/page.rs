//! Lists in pages.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

const LIMIT_DEFAULT: usize = 100;

const LIMIT_MAX: usize = 1000;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Items on the page, 100 if it is not said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// What `next` of the page before said.
    after: Option<String>,
    /// Only items whose name begins so.
    prefix: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// What is on it, in order.
    items: Vec<T>,
    /// To be sent as `after` for the next page; none if this is the last.
    next: Option<String>,
}

impl PageQuery {
    /// Cuts the page out of all items, which are in the order of their names.
    pub(crate) fn cut<T, U>(
        self,
        all: impl IntoIterator<Item = T>,
        name: impl Fn(&T) -> &str,
        show: impl Fn(T) -> U,
    ) -> Result<Page<U>, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::invalid(format!(
                "limit is {limit}; allowed is 1 to {LIMIT_MAX}"
            )));
        }
        let (after, prefix) = (self.after.as_deref(), self.prefix.as_deref().unwrap_or_default());
        let is_behind = |item: &T| after.is_none_or(|after| name(item) > after);
        let mut wanted = all
            .into_iter()
            .filter(|item| is_behind(item) && name(item).starts_with(prefix))
            .peekable();
        let (mut items, mut next) = (Vec::new(), None);
        while let Some(item) = wanted.next() {
            let is_last = items.len() + 1 == limit;
            if is_last && wanted.peek().is_some() {
                next = Some(name(&item).to_owned());
            }
            items.push(show(item));
            if is_last {
                break;
            }
        }
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_item_once() {
        let all = ["a", "b1", "b2", "b3", "c"];
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let query = PageQuery {
                limit: Some(2),
                after: after.take(),
                prefix: None,
            };
            let page = query.cut(all, |item| item, str::to_owned).unwrap();
            assert!(page.items.len() <= 2);
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
        let query = |limit| PageQuery {
            limit: Some(limit),
            after: None,
            prefix: Some("b".to_owned()),
        };
        let page = query(3).cut(all, |item| item, str::to_owned).unwrap();
        assert_eq!((page.items.len(), page.next), (3, None));
        assert!(query(0).cut(all, |item| item, str::to_owned).is_err());
        assert!(query(1001).cut(all, |item| item, str::to_owned).is_err());
    }
}
