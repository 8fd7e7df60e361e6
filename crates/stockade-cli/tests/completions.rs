//! What a shell completes, as the shell's own script asks for it.

use std::process::Command;

use testkit::{Guard, command, privileged, program, run, run_with, said};

/// What bash makes of these words, whose last is at the cursor, after it has read the script.
fn completed_by_bash(guard: &Guard, words: &[&str]) -> Vec<String> {
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
    bash.args(["--norc", "-c", script, "bash"]).args(words);
    let said = run_with(bash.env("PATH", path).env("STOCKADE_STATE_DIR", guard.state()));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{words:?}: {}", said.stdout);
    said.stdout.lines().map(str::to_owned).collect()
}

/// What the command answers the script of any shell.
fn answered(guard: &Guard, shell: &str, words: &[&str]) -> String {
    let mut asked = command(guard, &[]);
    asked.arg("--").arg("stockade").args(words);
    let index = words.len().to_string();
    let said = run_with(
        asked.env("STOCKADE_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n"),
    );
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{words:?}");
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
fn values_are_completed_by_what_is_known_of_them() {
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
        let words = ["run", "-f", &file.display().to_string(), "--only", "web"];
        assert_eq!(completed_by_bash(&guard, &words), ["web-1", "web-2"]);
    });
}

#[test]
fn each_shell_has_its_script() {
    let script = |shell| run("stockade", &["completions", shell]).stdout;
    assert!(script("bash").starts_with("_clap_complete_stockade() {\n"));
    assert!(script("zsh").starts_with("#compdef stockade\n"));
    assert!(script("fish").starts_with("complete "));
    // By its name, not by a path of the host that made the script.
    for shell in ["bash", "zsh", "fish"] {
        assert!(!script(shell).contains("/stockade"), "{}", script(shell));
    }
}

#[test]
fn another_shell_is_refused_in_one_line() {
    let told = run("stockade", &["completions", "tcsh"]);
    let line = "stockade: invalid value 'tcsh' for '<SHELL>' [possible values: bash, zsh, fish]";
    assert!(told.stderr.starts_with(line), "{}", told.stderr);
    assert_eq!((told.code, told.stdout.as_str(), told.stderr.lines().count()), (1, "", 1));
}
