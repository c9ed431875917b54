//! Whether output is coloured.
//!
//! `--color` wins, then `NO_COLOR` (<https://no-color.org>), then `CLICOLOR_FORCE` and `CLICOLOR`
//! (<https://bixense.com/clicolors>), then whether the stream is a terminal.

use std::ffi::OsString;
use std::io::IsTerminal as _;

use clap::ColorChoice;

/// What is asked for on a command line, before it is parsed: its own errors are coloured too.
pub fn asked(arguments: impl IntoIterator<Item = OsString>) -> ColorChoice {
    let mut choice = ColorChoice::Auto;
    let mut arguments = arguments.into_iter().filter_map(|argument| argument.into_string().ok());
    while let Some(argument) = arguments.next() {
        let value = match argument.split_once('=') {
            Some(("--color", value)) => Some(value.to_owned()),
            _ if argument == "--color" => arguments.next(),
            _ if argument == "--" => break,
            _ => None,
        };
        choice = value.and_then(|value| value.parse().ok()).unwrap_or(choice);
    }
    choice
}

/// Settles it for the whole program.
pub fn settle(choice: ColorChoice) {
    let set = |name: &str| std::env::var(name).ok();
    console::set_colors_enabled(enabled(choice, std::io::stdout().is_terminal(), set));
    console::set_colors_enabled_stderr(enabled(choice, std::io::stderr().is_terminal(), set));
}

fn enabled(choice: ColorChoice, terminal: bool, set: impl Fn(&str) -> Option<String>) -> bool {
    let given = |name: &str| set(name).filter(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if given("NO_COLOR").is_some() => false,
        ColorChoice::Auto if given("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto => {
            let off = given("CLICOLOR").is_some_and(|value| value == "0");
            terminal && !off && given("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_then_no_color_then_force_then_the_terminal() {
        let on = |choice, terminal, set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(key, _)| *key == name);
            enabled(choice, terminal, |name| value(name).map(|(_, value)| (*value).to_owned()))
        };
        let auto = ColorChoice::Auto;
        assert!(on(auto, true, &[]) && !on(auto, false, &[]));
        assert!(!on(auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
        assert!(on(auto, true, &[("NO_COLOR", "")]));
        assert!(on(auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!on(auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!on(auto, true, &[("CLICOLOR", "0")]) && !on(auto, true, &[("TERM", "dumb")]));
        assert!(on(ColorChoice::Always, false, &[("NO_COLOR", "1")]));
        assert!(!on(ColorChoice::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn the_last_one_asked_for_counts() {
        let asked = |line: &str| asked(line.split(' ').map(OsString::from));
        assert_eq!(asked("qpipe run p.toml"), ColorChoice::Auto);
        assert_eq!(asked("qpipe run p.toml --color always"), ColorChoice::Always);
        assert_eq!(asked("qpipe --color=always run --color never"), ColorChoice::Never);
        assert_eq!(asked("qpipe run -- --color never"), ColorChoice::Auto);
    }
}
