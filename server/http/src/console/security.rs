//! Users, and rules about who may do what, where the cluster has any.

use headwater_client::{Acl, AclFilter, AclPermission, User};
use maud::{Markup, html};

use super::format::{count, visible};
use super::page::{Part, ROOT, Reply, page, paged, pager, table};
use super::params::encode;
use super::visit::{Visit, within};

/// Rules on a page.
const RULES: usize = 100;

pub(super) async fn show(visit: Visit) -> Reply {
    let admin = visit.client.admin();
    let filter = AclFilter::default();
    let (users, rules) = futures::join!(within(admin.users()), within(admin.acls(&filter)));
    let wanted = visit.params.get("q").unwrap_or_default();
    let meant = |rule: &Acl| rule.principal.contains(wanted) || rule.name.contains(wanted);
    let rules = rules.map(|rules| rules.into_iter().filter(meant).collect::<Vec<Acl>>());
    let page_wanted = visit.params.number("page")?;
    let body = html! {
        h1 { "Security" }
        h2 { "Users" }
        @match &users { Ok(users) => (user_table(users)), Err(refusal) => (refusal) }
        h2 { "Rules (ACLs)" }
        @match &rules {
            Ok(rules) => {
                form.filter method="get" role="search" {
                    label { "User or name contains " input type="search" name="q" value=(wanted) data-find; }
                    button { "Show" }
                }
                @let (shown, at, pages) = paged(rules, page_wanted, RULES);
                p.hint { (count(rules.len() as u64)) " rules. Whoever is denied something is, whatever else allows it." }
                (rule_table(shown))
                (pager(&format!("{ROOT}/security?q={}", encode(wanted)), at, pages))
            }
            Err(refusal) => (refusal),
        }
        p.hint { "Change them with " code { "headwater user" } " and " code { "headwater acl" } "." }
    };
    Ok(page(Part::Security, "Security", &body))
}

fn user_table(users: &[User]) -> Markup {
    let row = |user: &User| {
        html! {
            th scope="row" { bdi { (visible(&user.name)) } }
            td { @for (place, (name, rounds)) in user.mechanisms.iter().enumerate() {
                @if place > 0 { ", " } (name) small { " (" (rounds) " rounds)" }
            } }
        }
    };
    let rows: Vec<Markup> = users.iter().map(row).collect();
    table(
        "Users that have passwords",
        &[("User", false), ("Proves itself by", false)],
        &rows,
    )
}

fn rule_table(rules: &[Acl]) -> Markup {
    let row = |rule: &Acl| {
        let is_denied = rule.permission == AclPermission::Deny;
        html! {
            th scope="row" { bdi { (visible(&rule.principal)) } }
            td { @if is_denied { span.badge.bad { "deny" } } @else { span.badge.well { (rule.permission.name()) } } }
            td { (rule.operation.name()) }
            td { (rule.resource.name()) }
            td { bdi { (visible(&rule.name)) } }
            td { (rule.pattern.name()) }
            td { (visible(&rule.host)) }
        }
    };
    let rows: Vec<Markup> = rules.iter().map(row).collect();
    let columns = [
        ("Who", false),
        ("May", false),
        ("Do what", false),
        ("With", false),
        ("Name", false),
        ("Meant", false),
        ("From", false),
    ];
    table("Rules", &columns, &rows)
}

#[cfg(test)]
mod tests {
    use headwater_client::{AclOperation, AclPattern, AclResource};

    use super::*;

    #[test]
    fn names_in_rules_are_text_whatever_they_are() {
        let rule = Acl {
            resource: AclResource::Group,
            pattern: AclPattern::Literal,
            name: "\"><img src=x onerror=alert(1)>".to_owned(),
            principal: "User:<script>\u{202e}".to_owned(),
            host: "*".to_owned(),
            operation: AclOperation::Read,
            permission: AclPermission::Deny,
        };
        let shown = rule_table(&[rule]).into_string();
        assert!(!shown.contains("<img") && !shown.contains("<script"), "{shown}");
        assert!(shown.contains("User:&lt;script&gt;\\u{202e}"), "{shown}");
    }
}
