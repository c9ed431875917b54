//! `docs/command-line.md`, generated from the commands' own help.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{Cli, exit};

/// The whole page.
fn manual() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = String::from(
        "# The command line\n\n\
         Generated from the program's own help: `qpipe COMMAND --help` says the same. `--color auto|always|never` goes with every\n\
         command; without it `NO_COLOR`, `CLICOLOR_FORCE` and the terminal decide. Tables and messages are as\n\
         wide as the terminal; where the output is none, as `COLUMNS` says, else 100 columns.\n",
    );
    for below in commands(&command) {
        section(below, "qpipe", "##", &mut text);
    }
    text.push_str("\n## Exit codes\n\n| Code | Meaning |\n| --- | --- |\n");
    for line in exit::HELP.lines().skip(1) {
        let (code, meaning) = line.trim().split_once(' ').unwrap_or_default();
        let _ = writeln!(text, "| {code} | {} |", cell(meaning.trim()));
    }
    text
}

fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set())
}

fn section(command: &Command, above: &str, level: &str, text: &mut String) {
    let name = format!("{above} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let _ = write!(text, "\n{level} `{name}`\n\n{about}.\n\n```text\n{usage}\n```\n");
    let own = |arg: &&Arg| {
        !arg.is_hide_set() && !["help", "color", "version"].contains(&arg.get_id().as_str())
    };
    let args: Vec<&Arg> = command.get_arguments().filter(own).collect();
    if !args.is_empty() {
        text.push_str("\n| Argument | Meaning |\n| --- | --- |\n");
    }
    for arg in args {
        let _ = writeln!(text, "| {} | {} |", written(arg), meaning(arg));
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if let Some(examples) = after.strip_prefix("Examples:\n") {
        let lines = examples.lines().take_while(|line| !line.is_empty());
        let lines: Vec<&str> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
        let _ = write!(text, "\n```sh\n{}\n```\n", lines.join("\n"));
    }
    for below in commands(command) {
        section(below, &name, &format!("{level}#"), text);
    }
}

/// `` `--jobs N`, `-j` ``.
fn written(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let values = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    let Some(long) = arg.get_long() else { return format!("`{values}`") };
    let short = arg.get_short().map(|short| format!(", `-{short}`")).unwrap_or_default();
    // A value that may be left out stands behind `=`, or it is taken for the next argument.
    let optional =
        arg.get_num_args().is_some_and(|count| count.takes_values() && count.min_values() == 0);
    if optional && arg.is_require_equals_set() {
        return format!("`--{long}[={values}]`{short}");
    }
    format!("`{}`{short}", format!("--{long} {values}").trim_end())
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let mut help = help.map(ToString::to_string).unwrap_or_default();
    if !help.ends_with('.') {
        help.push('.');
    }
    let values = arg.get_possible_values();
    if arg.get_action().takes_values() && !values.is_empty() {
        let values = values.iter().map(|value| {
            let about = value.get_help().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("`{}`{about}", value.get_name())
        });
        let _ = write!(help, " One of {}.", values.collect::<Vec<_>>().join(", "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(help, " Default: `{}`.", defaults.join(" "));
    }
    cell(&help)
}

/// Text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_manual_of_the_command_line_is_current() {
    crate::config::compare("command-line.md", &manual());
}
