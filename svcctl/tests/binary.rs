//! The binary as a shell sees it: its help, its exit codes, and what goes where.

use std::process::{Command, Output, Stdio};

fn svcctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_svcctl"))
        .args(arguments)
        // Help shows the environment's values, and is as wide as the terminal.
        .env_clear()
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

fn help(arguments: &[&str]) -> String {
    let output = svcctl(arguments);
    assert!(output.status.success(), "help is a result: {output:?}");
    assert!(output.stderr.is_empty(), "help goes to stdout: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_help_lists_every_command_with_examples() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "services",
        "get",
        "watch",
        "drain",
        "undrain",
        "set",
        "register",
        "deregister",
        "resolve",
        "probe",
        "dev",
        "demo",
    ];
    // What all commands share is shown once, above.
    let own = |text: String| {
        let options = text.split("\n\netcd:\n").next().unwrap_or_default();
        let examples = text.find("\n\nExamples:").map_or("", |at| &text[at..]);
        let about = text.find("\n\nIt ").or(text.find("\n\nThe drain")).or(text.find("\n\nAn instance"));
        format!("{options}{}\n", about.map_or(examples, |at| &text[at..]).trim_end())
    };
    let all: Vec<String> = commands.map(|command| own(help(&[command, "--help"]))).to_vec();
    insta::assert_snapshot!(all.join("\n--------\n\n"));
}

#[test]
fn the_version_is_a_result() {
    assert_eq!(help(&["--version"]), format!("svcctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn errors_go_to_stderr_with_their_exit_code() {
    for (arguments, code) in [
        (&["explode"][..], 2),
        (&["get", "a/b"], 2),
        (&["get", "--endpoints", "127.0.0.1:1", "--command-timeout", "300ms"], 4),
        (&["probe", "nowhere"], 2),
        (&["probe", "127.0.0.1:1"], 1),
    ] {
        let output = svcctl(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
        assert!(!output.stderr.contains(&0x1b), "no colour where there is no terminal: {output:?}");
    }
}
