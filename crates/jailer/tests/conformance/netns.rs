//! Section 2, step 5: the network namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;

use stockade::spec::{ExecFile, HostPath, JailSpec};
use stockade::steps::{NamedNetns, Step, StepContext};
use stockade::{Layout, Nonce};

use crate::fixture::{Fixture, conforms, refuses};

/// A network namespace with a name. Dropping it removes the namespace.
struct Named {
    step: Step,
    ctx: StepContext,
    path: String,
}

impl Named {
    fn new(fixture: &Fixture<'_>) -> Self {
        let name = fixture.guard.named("net");
        let spec = JailSpec::new(
            fixture.id.parse().unwrap(),
            ExecFile::new(&fixture.exec).unwrap(),
            HostPath::directory(&fixture.base).unwrap(),
        );
        let ctx = StepContext::new(Layout::new(&spec), Some(Nonce::new()));
        let step = Step::from(NamedNetns { name: name.parse().unwrap() });
        step.apply(&ctx).unwrap();
        Self { step, ctx, path: format!("/run/netns/{name}") }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.step.undo(&self.ctx);
    }
}

#[test]
fn the_vmm_is_in_the_named_namespace() {
    conforms!(fixture, {
        let named = Named::new(&fixture);
        let live = fixture.start(&["--netns", &named.path]);
        let namespace = fs::metadata(format!("/proc/{}/ns/net", live.pid())).unwrap().ino();
        assert_eq!(namespace, fs::metadata(&named.path).unwrap().ino());
        assert_ne!(namespace, fs::metadata("/proc/self/ns/net").unwrap().ino());
    });
}

#[test]
fn a_symlink_to_the_namespace_is_followed() {
    conforms!(fixture, {
        let named = Named::new(&fixture);
        let link = fixture.guard.directory().join("netns-link");
        std::os::unix::fs::symlink(&named.path, &link).unwrap();
        let report = fixture.report(&["--netns", link.to_str().unwrap()]);
        assert_eq!(report["network"], serde_json::json!(["lo"]));
    });
}

#[test]
fn without_the_flag_the_vmm_is_in_the_callers_namespace() {
    conforms!(fixture, {
        let live = fixture.start(&[]);
        let namespace = fs::read_link(format!("/proc/{}/ns/net", live.pid())).unwrap();
        assert_eq!(namespace, fs::read_link("/proc/self/ns/net").unwrap());
    });
}

#[test]
fn a_missing_file_or_one_that_is_no_namespace_is_refused() {
    conforms!(fixture, {
        let text = "Failed to open file /no/such/netns: No such file or directory (os error 2)";
        refuses(&fixture.run(&["--netns", "/no/such/netns"], &[]), text);
        let file = fixture.guard.file("no-netns", "");
        let text = "Failed to join network namespace: netns: Invalid argument (os error 22)";
        refuses(&fixture.run(&["--netns", file.to_str().unwrap()], &[]), text);
    });
}
