//! Section 2, step 6: resource limits.

use serde_json::json;

use crate::fixture::{conforms, refuses, strace};

#[test]
fn default_limits_are_2048_files_of_any_size() {
    conforms!(fixture, {
        let lines = fixture.json_lines(&[], &["limits"]);
        assert_eq!(lines[0]["limits"]["no-file"], json!([2048, 2048]));
        let own = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        assert_eq!(lines[0]["limits"]["fsize"], json!([own.current, own.maximum]), "the caller's own");
    });
}

#[test]
fn limits_are_soft_and_hard_and_the_last_value_counts() {
    conforms!(fixture, {
        let flags =
            ["fsize=10", "no-file=100", "fsize=5000"].map(|limit| ["--resource-limit", limit]).concat();
        let lines = fixture.json_lines(&flags, &["limits"]);
        assert_eq!(lines[0]["limits"], json!({ "no-file": [100, 100], "fsize": [5000, 5000] }));
    });
}

#[test]
fn a_file_size_limit_does_not_truncate_the_executable() {
    conforms!(fixture, {
        assert_eq!(fixture.run(&["--resource-limit", "fsize=50"], &["exit=3"]).code, 3);
    });
}

#[test]
fn a_refused_limit_is_named() {
    conforms!(fixture, {
        let text = "Failed to set limit for resource: number of file descriptors";
        let most = u64::MAX.to_string();
        refuses(&fixture.run(&["--resource-limit", &format!("no-file={most}")], &[]), text);
        let trace = ["-qq", "-o", "/dev/null", "-e", "trace=prlimit64,setrlimit", "-e"];
        // glibc calls prlimit64 at its start, and goes on if that fails.
        let fault = "inject=prlimit64,setrlimit:error=EPERM";
        let command = fixture.command(&["--resource-limit", "fsize=50"], &[]);
        let Some(mut command) =
            strace("limits::a_refused_limit_is_named", &[&trace[..], &[fault]].concat(), &command)
        else {
            return;
        };
        fixture.id = "unused".to_owned();
        refuses(&testkit::run_with(&mut command), "Failed to set limit for resource: size of file");
    });
}
