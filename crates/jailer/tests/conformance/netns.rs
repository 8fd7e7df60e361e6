//! Section 2, step 5: the network namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;

use stockade::spec::{ExecFile, HostPath, JailSpec};
use stockade::steps::{NamedNetns, Step, StepContext};
use stockade::{Layout, Nonce};

use crate::ground::{Ground, conforms, refuses};

/// A network namespace with a name, removed when this goes.
struct Named {
    step: Step,
    site: StepContext,
    path: String,
}

impl Named {
    fn new(ground: &Ground<'_>) -> Self {
        let name = ground.guard.named("net");
        let spec = JailSpec::new(
            ground.id.parse().unwrap(),
            ExecFile::new(&ground.exec).unwrap(),
            HostPath::directory(&ground.base).unwrap(),
        );
        let site = StepContext::new(Layout::new(&spec), Some(Nonce::new()));
        let step = Step::from(NamedNetns { name: name.parse().unwrap() });
        step.apply(&site).unwrap();
        Self { step, site, path: format!("/run/netns/{name}") }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.step.undo(&self.site);
    }
}

#[test]
fn the_vmm_is_in_the_namespace_that_the_file_is() {
    conforms!(ground, {
        let named = Named::new(&ground);
        let live = ground.start(&["--netns", &named.path]);
        let theirs = fs::metadata(format!("/proc/{}/ns/net", live.pid())).unwrap().ino();
        assert_eq!(theirs, fs::metadata(&named.path).unwrap().ino());
        assert_ne!(theirs, fs::metadata("/proc/self/ns/net").unwrap().ino());
    });
}

#[test]
fn a_link_to_the_namespace_is_followed() {
    conforms!(ground, {
        let named = Named::new(&ground);
        let link = ground.guard.directory().join("netns-link");
        std::os::unix::fs::symlink(&named.path, &link).unwrap();
        let report = ground.report(&["--netns", link.to_str().unwrap()]);
        assert_eq!(report["network"], serde_json::json!(["lo"]));
    });
}

#[test]
fn without_the_flag_the_vmm_is_in_the_callers_namespace() {
    conforms!(ground, {
        let live = ground.start(&[]);
        let theirs = fs::read_link(format!("/proc/{}/ns/net", live.pid())).unwrap();
        assert_eq!(theirs, fs::read_link("/proc/self/ns/net").unwrap());
    });
}

#[test]
fn a_file_that_is_not_there_or_no_namespace_is_refused() {
    conforms!(ground, {
        let text = "Failed to open file /no/such/netns: No such file or directory (os error 2)";
        refuses(&ground.run(&["--netns", "/no/such/netns"], &[]), text);
        let file = ground.guard.file("no-netns", "");
        let text = "Failed to join network namespace: netns: Invalid argument (os error 22)";
        refuses(&ground.run(&["--netns", file.to_str().unwrap()], &[]), text);
    });
}
