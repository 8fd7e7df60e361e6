//! Section 2, step 6: resource limits.

use serde_json::json;

use crate::ground::{conforms, ours_or_original, refuses, strace};

#[test]
fn by_default_there_are_2048_descriptors_and_files_of_any_size() {
    conforms!(ground, {
        let said = ground.said(&[], &["limits"]);
        assert_eq!(said[0]["limits"]["no-file"], json!([2048, 2048]));
        let own = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        assert_eq!(said[0]["limits"]["fsize"], json!([own.current, own.maximum]), "the caller's own");
    });
}

#[test]
fn limits_are_soft_and_hard_alike_and_the_last_of_a_kind_counts() {
    conforms!(ground, {
        let flags =
            ["fsize=10", "no-file=100", "fsize=5000"].map(|limit| ["--resource-limit", limit]).concat();
        let said = ground.said(&flags, &["limits"]);
        assert_eq!(said[0]["limits"], json!({ "no-file": [100, 100], "fsize": [5000, 5000] }));
    });
}

#[test]
fn a_limit_on_files_does_not_cut_the_executable() {
    conforms!(ground, {
        assert_eq!(ground.run(&["--resource-limit", "fsize=50"], &["exit=3"]).code, 3);
    });
}

#[test]
fn a_limit_that_the_kernel_refuses_is_named() {
    conforms!(ground, {
        let text = "Failed to set limit for resource: number of file descriptors";
        let most = u64::MAX.to_string();
        refuses(&ground.run(&["--resource-limit", &format!("no-file={most}")], &[]), text);
        let trace = ["-qq", "-o", "/dev/null", "-e", "trace=prlimit64,setrlimit", "-e"];
        // The C library asks for a limit at its start, once or, in the original's, not at all.
        let fault = format!("inject=prlimit64,setrlimit:error=EPERM:when={}", ours_or_original("2+", "1+"));
        let command = ground.command(&["--resource-limit", "fsize=50"], &[]);
        let Some(mut command) = strace(
            "limits::a_limit_that_the_kernel_refuses_is_named",
            &[&trace[..], &[&fault]].concat(),
            &command,
        ) else {
            return;
        };
        ground.id = "unused".to_owned();
        refuses(&testkit::run_with(&mut command), "Failed to set limit for resource: size of file");
    });
}
