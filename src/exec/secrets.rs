//! The values of `${secret.NAME}`: put into a command's environment, taken out of its lines.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};

use super::failure::failure;
use crate::config::{StageCell, secrets};
use crate::task::{Blame, Failure};

/// What stands for a secret's value in logs.
const MASK: &str = "***";

/// The secrets of a stage, with their values.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Vec<(String, OsString)>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values.iter().map(|(name, _)| name)).finish()
    }
}

impl Secrets {
    /// Those of a stage, from this process's environment.
    ///
    /// # Errors
    ///
    /// A failure of the stage that names the variables that are not set, and those that are empty.
    pub fn of(cell: &StageCell) -> Result<Self, Failure> {
        Self::read(&cell.secrets, |name| std::env::var_os(name))
    }

    fn read(
        names: &[String],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let mut values = Vec::new();
        let (mut missing, mut empty) = (Vec::new(), Vec::new());
        for name in names {
            match variable(name) {
                Some(value) if value.is_empty() => empty.push(format!("`{name}`")),
                Some(value) => values.push((name.clone(), value)),
                None => missing.push(format!("`{name}`")),
            }
        }
        let said = |names: &[String], what: &str| {
            let (noun, verb) =
                if names.len() == 1 { ("variable", "is") } else { ("variables", "are") };
            format!("the environment {noun} {} {verb} {what}", names.join(", "))
        };
        let told = [(missing, "not set"), (empty, "empty")];
        let told = told.iter().filter(|(names, _)| !names.is_empty());
        let told: Vec<String> = told.map(|(names, what)| said(names, what)).collect();
        if told.is_empty() {
            return Ok(Self { values });
        }
        let help = "the stage takes it as a secret: set it where qpipe runs";
        // CI systems give an empty text for a secret that they do not know.
        Err(failure(Blame::User, told.join(", and "), Some(help)))
    }

    /// A value of `env` with its secrets put in.
    pub fn put_in(&self, text: &str) -> OsString {
        let mut whole = OsString::new();
        let mut rest = text;
        while let Some((at, length, value)) = self.first(rest) {
            whole.push(&rest[..at]);
            whole.push(value);
            rest = &rest[at + length..];
        }
        whole.push(rest);
        whole
    }

    /// The first placeholder in a text: where, how long, and its value.
    fn first(&self, text: &str) -> Option<(usize, usize, &OsStr)> {
        let found = self.values.iter().filter_map(|(name, value)| {
            let placeholder = secrets::placeholder(name);
            Some((text.find(&placeholder)?, placeholder.len(), value.as_os_str()))
        });
        found.min_by_key(|(at, ..)| *at)
    }
}

/// The line with `***` in place of each secret's value. Of a value of several lines, each is masked
/// where it is long enough to tell something.
pub fn mask<'l>(line: &'l str, secrets: &Secrets) -> Cow<'l, str> {
    /// A line of a key's text; shorter ones, such as `}`, are no secret.
    const TELLING: usize = 8;
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (_, value) in &secrets.values {
        let value = value.to_string_lossy();
        let several = value.trim_end().contains('\n');
        for part in value.lines().map(str::trim) {
            if part.is_empty() || (several && part.len() < TELLING) {
                continue;
            }
            ranges.extend(line.match_indices(part).map(|(at, text)| (at, at + text.len())));
        }
    }
    if ranges.is_empty() {
        return Cow::Borrowed(line);
    }
    ranges.sort_unstable();
    let mut masked = String::with_capacity(line.len());
    let mut done = 0;
    for (start, end) in ranges {
        // Values that overlap are one mask.
        if start >= done {
            masked.push_str(&line[done..start]);
            masked.push_str(MASK);
        }
        done = done.max(end);
    }
    masked.push_str(&line[done..]);
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        Secrets { values: values.collect() }
    }

    #[test]
    fn values_are_put_in_once() {
        let secrets = secrets(&[("A", "${secret.B}"), ("B", "b")]);
        let text = secrets.put_in("x ${secret.B}${secret.A} ${secret.C} y");
        assert_eq!(text, "x b${secret.B} ${secret.C} y");
        assert_eq!(secrets.put_in("plain"), "plain");
    }

    #[test]
    fn what_is_not_set_or_empty_is_named() {
        let names = ["A", "B", "C"].map(str::to_owned);
        let said = |values: [Option<&str>; 3]| {
            let of = |name: &str| values[usize::from(name.as_bytes()[0] - b'A')].map(Into::into);
            let failure = Secrets::read(&names, of).unwrap_err();
            assert_eq!(failure.blame, Blame::User);
            failure.message
        };
        assert_eq!(said([Some("a"), None, None]), "the environment variables `B`, `C` are not set");
        assert_eq!(said([Some("a"), Some("b"), Some("")]), "the environment variable `C` is empty");
        assert_eq!(
            said([Some(""), None, Some("")]),
            "the environment variable `B` is not set, and the environment variables `A`, `C` are empty"
        );
    }

    #[test]
    fn values_are_masked_wherever_they_stand() {
        let secrets = secrets(&[("A", "tok"), ("B", "token"), ("C", "kenya")]);
        assert_eq!(mask("tok, token and tokenya", &secrets), "***, *** and ***");
        assert!(matches!(mask("nothing", &secrets), Cow::Borrowed("nothing")));
        assert_eq!(mask("token", &Secrets::default()), "token");
    }

    #[test]
    fn each_line_of_a_key_is_masked() {
        let secrets = secrets(&[("KEY", "{\n  \"key\": \"MIIEvQIBADAN\"\n}\n")]);
        assert_eq!(mask("read \"key\": \"MIIEvQIBADAN\"", &secrets), "read ***");
        assert_eq!(mask("{ }", &secrets), "{ }");
        assert_eq!(format!("{secrets:?}"), "[\"KEY\"]");
    }
}
