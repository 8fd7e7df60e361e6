//! Common parts of the tests of placements: a jail, and a probe as its VMM.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;
use stockade::spec::{ExecFile, HostPath, JailPath, JailSpec, Owner};
use stockade::{Created, How, Placed, Placement, Running, Streams, Stripped};
use testkit::{Guard, Privilege, attributes, program};

pub(crate) const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// A jail whose VMM is the probe with these arguments.
pub(crate) fn spec(guard: &Guard, base: &Path, arguments: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(base).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named("jail").parse().unwrap(), vmm, base);
    spec.owner = OWNER;
    spec.arguments = arguments.iter().map(Into::into).collect();
    spec
}

pub(crate) fn create(guard: &Guard, arguments: &[&str]) -> Created {
    guard.store().create(&spec(guard, &guard.base(), arguments)).unwrap()
}

/// A running probe. At each `hold` among its arguments it waits for [`Probe::resume`].
pub(crate) struct Probe {
    pub(crate) running: Running,
    pub(crate) output: BufReader<PipeReader>,
    pub(crate) input: PipeWriter,
}

impl Probe {
    pub(crate) fn launch(created: Created) -> Self {
        let ((stdin, input), (output, stdout)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let streams = Streams {
            stdin: Some(OwnedFd::from(stdin)),
            stdout: Some(OwnedFd::from(stdout)),
            ..Streams::default()
        };
        Self { running: created.launch(streams).unwrap(), output: BufReader::new(output), input }
    }

    pub(crate) fn resume(&mut self) {
        self.input.write_all(b".").unwrap();
    }

    /// The next line of its output.
    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    pub(crate) fn finish(mut self) {
        self.running.wait().unwrap();
        let report = self.running.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

pub(crate) fn at(path: &str) -> JailPath {
    JailPath::new(path).unwrap()
}

pub(crate) fn tear_down(created: Created) {
    let report = created.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// The number of steps on the receipt for a path in the jail.
pub(crate) fn on_receipt(created: &Created, path: &str) -> usize {
    let receipt = serde_json::to_value(created.receipt()).unwrap();
    receipt["steps"].as_array().unwrap().iter().filter(|step| step["path"] == path).count()
}

/// Checks that the host's file still has this privilege, and that its copy in the jail has neither a privilege nor an
/// extended attribute.
pub(crate) fn has_lost(root: &HostPath, name: &str, source: &Path, privilege: Privilege) {
    let copy = root.join(name);
    let (in_jail, on_host) = (copy.as_path().metadata().unwrap(), source.metadata().unwrap());
    assert_eq!(in_jail.mode() & 0o7000, 0, "{name}: {:o}", in_jail.mode());
    assert_ne!(
        (in_jail.dev(), in_jail.ino()),
        (on_host.dev(), on_host.ino()),
        "{name} is the host's own file"
    );
    assert_eq!(attributes(copy.as_path()), [""; 0], "{name}");
    match privilege {
        Privilege::SetUid => assert_eq!(on_host.mode() & 0o7777, 0o4755),
        Privilege::SetGid => assert_eq!(on_host.mode() & 0o7777, 0o2755),
        Privilege::Capabilities => assert_eq!(attributes(source), ["security.capability"]),
    }
}

/// Checks that this privilege and no other is reported as stripped.
pub(crate) fn is_reported(stripped: Option<&Stripped>, source: &Path, privilege: Privilege) {
    let reported = serde_json::to_value(stripped).unwrap();
    assert_eq!(reported, serde_json::json!({"path": source, "powers": [privilege.name()], "count": 1}));
}

/// Checks that a second source replaces the first under the same name, in a directory that did not exist, and is taken
/// out.
pub(crate) fn replaces_and_is_taken_out(created: &mut Created, first: &Path, second: &Path, how: How) {
    let place = |created: &mut Created, source: &Path| {
        created.place(Placement::new(source).named("drives/a/image").how(how)).unwrap()
    };
    let placed = place(created, first);
    assert_eq!(placed, Placed { path: at("drives/a/image"), how, stripped: None });
    let image = created.root().join("drives/a/image").as_path().to_owned();
    let before = image.symlink_metadata().unwrap();
    place(created, second);
    let after = image.symlink_metadata().unwrap();
    assert_ne!((before.ino(), before.rdev()), (after.ino(), after.rdev()), "{how} was not replaced");
    assert_eq!(on_receipt(created, "/drives/a/image"), 1, "{how}: the first is no longer on the receipt");
    created.unplace(&at("drives/a/image")).unwrap();
    assert!(image.symlink_metadata().is_err(), "{how} is still there");
    assert_eq!(on_receipt(created, "/drives/a/image"), 0, "{how} is still on the receipt");
    let error = created.unplace(&at("drives/a/image")).unwrap_err();
    assert_eq!(error.to_string(), "'/drives/a/image' was not placed into the jail");
    assert_eq!(image.parent().unwrap().read_dir().unwrap().count(), 0, "{how} left something beside it");
}
