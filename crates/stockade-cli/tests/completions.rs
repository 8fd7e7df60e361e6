//! Completions, as the scripts of the shells request them.

use std::process::Command;

use testkit::{Guard, command, privileged, program, run, run_with, said};

/// Bash's completions of these arguments, with the cursor at the last one.
fn completed_by_bash(guard: &Guard, arguments: &[&str]) -> Vec<String> {
    let script = r#"
        source <(stockade completions bash)
        [[ $(complete -p stockade) = *'-F _clap_complete_stockade stockade' ]] || exit 3
        COMP_WORDS=(stockade "$@") COMP_CWORD=$# COMP_TYPE=9
        _clap_complete_stockade stockade "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let stockade = program("stockade");
    let directory = stockade.parent().expect("a program is in a directory");
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"]).args(arguments);
    let said = run_with(bash.env("PATH", path).env("STOCKADE_STATE_DIR", guard.state()));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{arguments:?}: {}", said.stdout);
    said.stdout.lines().map(str::to_owned).collect()
}

/// The command's answer to the script of a shell.
fn answered(guard: &Guard, shell: &str, arguments: &[&str]) -> String {
    let mut asked = command(guard, &[]);
    asked.arg("--").arg("stockade").args(arguments);
    let index = arguments.len().to_string();
    let said = run_with(
        asked.env("STOCKADE_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n"),
    );
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{arguments:?}");
    said.stdout
}

#[test]
fn bash_completes_commands_flags_values_and_files() {
    privileged!(guard, {
        assert_eq!(completed_by_bash(&guard, &["host"]), ["host-setup"]);
        assert_eq!(completed_by_bash(&guard, &["run", "--chroot"]), ["--chroot-base-dir"]);
        assert_eq!(completed_by_bash(&guard, &["completions", "f"]), ["fish"]);
        assert_eq!(completed_by_bash(&guard, &["run", "--profile", "fire"]), ["firecracker"]);
        assert_eq!(completed_by_bash(&guard, &["run", "--exec-file", "/etc/os-rel"]), ["/etc/os-release"]);
        assert_eq!(completed_by_bash(&guard, &["run", "--place", "/etc/os-rel"]), ["/etc/os-release"]);
    });
}

#[test]
fn jails_are_completed_where_they_must_exist() {
    privileged!(guard, {
        let id = guard.named("one");
        let vmm = program("stockade-probe").display().to_string();
        let base = guard.base().display().to_string();
        said(&guard, &["create", "--id", &id, "--exec-file", &vmm, "--chroot-base-dir", &base]);
        for command in ["start", "rm", "inspect", "exec", "place", "logs", "wait"] {
            assert_eq!(completed_by_bash(&guard, &[command, guard.name()]), [id.as_str()], "{command}");
        }
        assert_eq!(completed_by_bash(&guard, &["run", "--id", guard.name()]), [""], "it is to be a new one");
        assert_eq!(answered(&guard, "fish", &["rm", guard.name()]), format!("{id}\tcreated\n"));
        assert_eq!(answered(&guard, "zsh", &["rm", guard.name()]), format!("{id}:created"));
        said(&guard, &["rm", &id]);
        assert_eq!(completed_by_bash(&guard, &["rm", guard.name()]), [""]);
    });
}

#[test]
fn values_of_flags_are_completed() {
    privileged!(guard, {
        let id = guard.named("one");
        let vmm = program("stockade-probe").display().to_string();
        let base = guard.base().display().to_string();
        let flags = ["--exec-file", &vmm, "--chroot-base-dir", &base, "--place", "/etc/passwd=etc/users"];
        said(&guard, &[&["create", "--id", &id], &flags[..]].concat());
        assert_eq!(completed_by_bash(&guard, &["unplace", &id, "/etc"]), ["/etc/users"]);
        assert_eq!(completed_by_bash(&guard, &["unplace", "none", "/etc"]), [""]);
        said(&guard, &["start", &id, "--", "sleep"]);
        assert_eq!(completed_by_bash(&guard, &["start", guard.name()]), [""], "it runs already");
        said(&guard, &["rm", "--force", &id]);
        assert_eq!(completed_by_bash(&guard, &["kill", "-s", "TE"]), ["TERM"]);
        assert_eq!(completed_by_bash(&guard, &["ps", "--filter", "state=run"]), ["state=running"]);
        assert_eq!(completed_by_bash(&guard, &["rm", "--filter", "old"]), ["older="]);
        let file = guard.file("jails.toml", "[[jail]]\nid = 'web-{index}'\ncount = 2\n[[jail]]\nid = 'db'");
        let arguments = ["run", "-f", &file.display().to_string(), "--only", "web"];
        assert_eq!(completed_by_bash(&guard, &arguments), ["web-1", "web-2"]);
    });
}

#[test]
fn each_shell_has_its_script() {
    let script = |shell| run("stockade", &["completions", shell]).stdout;
    assert!(script("bash").starts_with("_clap_complete_stockade() {\n"));
    assert!(script("zsh").starts_with("#compdef stockade\n"));
    assert!(script("fish").starts_with("complete "));
    // A script calls the command by its name, not by a path of the host that generated it.
    for shell in ["bash", "zsh", "fish"] {
        assert!(!script(shell).contains("/stockade"), "{}", script(shell));
    }
}

#[test]
fn an_unknown_shell_is_refused_in_one_line() {
    let output = run("stockade", &["completions", "tcsh"]);
    let line = "stockade: invalid value 'tcsh' for '<SHELL>'; use one of bash, zsh, fish";
    assert!(output.stderr.starts_with(line), "{}", output.stderr);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.lines().count()), (1, "", 1));
}
