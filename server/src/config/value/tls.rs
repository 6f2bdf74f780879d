//! What TLS needs to be told on each port: files, whether clients show a certificate, and what they are called by it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use regex::Regex;

use super::Value;

/// Files, in an order that means something; usually one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// None were named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }
}

impl Value for Files {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let names = text.split(',').map(str::trim);
        let files: Vec<PathBuf> = match text {
            "off" | "" => Vec::new(),
            _ => names.map(PathBuf::from).collect(),
        };
        if files.iter().any(|file| file.as_os_str().is_empty()) {
            return Err("\"off\", or the name of a file, or several with commas between".to_owned());
        }
        self.0 = files;
        Ok(())
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return "off".to_owned();
        }
        let names = self.0.iter().map(|file| file.display().to_string());
        names.collect::<Vec<_>>().join(",")
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They are asked, and may do without; one that they show must be good.
    Requested,
    /// Whoever shows none is refused.
    Required,
}

impl Value for ClientAuth {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "none" => Self::None,
            "requested" => Self::Requested,
            "required" => Self::Required,
            _ => return Err("\"none\", \"requested\" or \"required\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        let name = match self {
            Self::None => "none",
            Self::Requested => "requested",
            Self::Required => "required",
        };
        name.to_owned()
    }
}

/// What a principal is made of the subject of a certificate: the first rule that fits says. As Kafka's `ssl.principal.mapping.rules`.
#[derive(Clone, Debug)]
pub struct PrincipalRules {
    text: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Rule {
    /// The subject as it is.
    Default,
    Replace {
        /// Fits the whole.
        whole: Regex,
        pattern: Regex,
        /// With `$1` written as `${1}`.
        replacement: String,
        case: Case,
    },
}

#[derive(Clone, Copy, Debug)]
enum Case {
    Kept,
    Lower,
    Upper,
}

impl Default for PrincipalRules {
    fn default() -> Self {
        Self {
            text: "DEFAULT".to_owned(),
            rules: vec![Rule::Default],
        }
    }
}

impl PartialEq for PrincipalRules {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PrincipalRules {}

impl PrincipalRules {
    /// The principal of who has a certificate with this subject; none if no rule fits.
    pub fn apply(&self, subject: &str) -> Option<String> {
        self.rules.iter().find_map(|rule| rule.apply(subject))
    }
}

impl Rule {
    fn apply(&self, subject: &str) -> Option<String> {
        let Self::Replace {
            whole,
            pattern,
            replacement,
            case,
        } = self
        else {
            return Some(subject.to_owned());
        };
        if !whole.is_match(subject) {
            return None;
        }
        let name = pattern.replace_all(subject, replacement.as_str());
        Some(match case {
            Case::Kept => name.into_owned(),
            Case::Lower => name.to_lowercase(),
            Case::Upper => name.to_uppercase(),
        })
    }
}

impl fmt::Display for PrincipalRules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Value for PrincipalRules {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (rule, behind) = next_rule(rest)?;
            rules.push(rule);
            rest = behind;
        }
        if rules.is_empty() {
            return Err(
                "DEFAULT, or RULE:pattern/replacement/ with L or U behind it, several with commas between".to_owned(),
            );
        }
        *self = Self {
            text: text.trim().to_owned(),
            rules,
        };
        Ok(())
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}

/// The first rule, and what follows the comma behind it. A pattern may hold commas, so it ends at its `/` and nowhere else.
fn next_rule(text: &str) -> Result<(Rule, &str), String> {
    let (rule, rest) = if let Some(rest) = text.strip_prefix("DEFAULT") {
        (Rule::Default, rest)
    } else {
        let expected = || format!("a rule as DEFAULT or RULE:pattern/replacement/[LU] where it says {text:?}");
        let rest = text.strip_prefix("RULE:").ok_or_else(expected)?;
        let (pattern, rest) = until_slash(rest).ok_or_else(expected)?;
        let (replacement, rest) = until_slash(rest).ok_or_else(expected)?;
        let (case, rest) = match rest.chars().next() {
            Some('L') => (Case::Lower, &rest[1..]),
            Some('U') => (Case::Upper, &rest[1..]),
            _ => (Case::Kept, rest),
        };
        let compile = |pattern: &str| {
            let read = Regex::new(pattern);
            read.map_err(|error| {
                format!("a pattern that looks neither ahead nor behind, nor back at its groups: {error}")
            })
        };
        let rule = Rule::Replace {
            whole: compile(&format!("^(?:{pattern})$"))?,
            pattern: compile(pattern)?,
            replacement: with_braces(replacement),
            case,
        };
        (rule, rest)
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let behind = rest.strip_prefix([',', '\n']);
    match behind {
        Some(behind) => Ok((rule, behind.trim())),
        None if rest.is_empty() => Ok((rule, rest)),
        None => Err(format!("a comma between two rules where it says {rest:?}")),
    }
}

/// What comes before the next slash that has no backslash before it, and what comes after it.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '/' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Kafka's `$1` as `${1}`: without braces, letters behind the number would belong to the group's name.
fn with_braces(replacement: &str) -> String {
    let mut out = String::with_capacity(replacement.len() + 2);
    let mut letters = replacement.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            // A backslash takes its meaning from what follows.
            '\\' => match letters.next() {
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => {}
            },
            '$' if letters.peek().is_some_and(char::is_ascii_digit) => {
                out.push_str("${");
                while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                    out.push(digit);
                }
                out.push('}');
            }
            '$' => out.push_str("$$"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(rules: &str, subject: &str) -> Option<String> {
        let mut read = PrincipalRules::default();
        read.read(rules).unwrap();
        assert_eq!(read.show(), rules);
        read.apply(subject)
    }

    /// The examples of Kafka's documentation, of its tests, and what its readers trip over.
    #[test]
    fn a_subject_becomes_the_principal_that_kafka_makes_of_it() {
        let duke = "CN=Duke,OU=ServiceUsers,O=Org,C=US";
        let admin = "CN=Admin,OU=Admins,O=Org\\, Inc.,C=DE";
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/, RULE:^CN=(.*?),OU=(.*?),O=(.*?),C=(.*?)$/$1@$2/L, RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U, DEFAULT";
        assert_eq!(applied(rules, duke).as_deref(), Some("Duke"));
        assert_eq!(applied(rules, admin).as_deref(), Some("admin@admins"));
        assert_eq!(applied(rules, "OU=x,CN=web.1").as_deref(), Some("WEB.1"));
        assert_eq!(applied(rules, "O=nobody").as_deref(), Some("O=nobody"));
        assert_eq!(applied("RULE:^CN=(.*)$/$1/", "O=nobody"), None, "no rule fits");
        assert_eq!(applied("DEFAULT", duke).as_deref(), Some(duke));
        assert_eq!(applied("RULE:CN=(\\w+).*/a\\/$1b/", duke).as_deref(), Some("a/Dukeb"));
        assert_eq!(applied("RULE:.*CN=Du.*/all/", duke).as_deref(), Some("all"));
        assert_eq!(applied("RULE:CN=Du/all/", duke), None, "it must fit as a whole");
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_is_wrong() {
        for (rules, expected) in [
            ("", "DEFAULT, or RULE:"),
            ("RULE:^CN", "RULE:^CN"),
            ("RULE:a/b", "RULE:a/b"),
            ("DEFAULT x", "a comma"),
            ("RULE:(?=a)b/c/", "looks neither ahead"),
            ("RULE:a(/b/", "unclosed"),
        ] {
            let error = PrincipalRules::default().read(rules).unwrap_err();
            assert!(error.contains(expected), "{rules}: {error}");
        }
    }

    #[test]
    fn files_are_read_as_they_are_shown() {
        for (text, count) in [("off", 0), ("a.pem", 1), ("/etc/a b.pem,c.pem", 2)] {
            let mut files = Files::default();
            files.read(text).unwrap();
            assert_eq!((files.show().as_str(), files.len()), (text, count));
        }
        assert!(Files::default().read("a,,b").is_err());
    }
}
