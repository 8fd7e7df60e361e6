//! What the tests of placements share: a jail, and a VMM that is talked to.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;
use stockade::spec::{ExecFile, HostPath, JailPath, JailSpec, Owner};
use stockade::{Created, How, Placed, Placement, Running, Streams, Stripped};
use testkit::{Guard, Powerful, attributes, program};

pub(crate) const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// A jail whose VMM does what the words say.
pub(crate) fn spec(guard: &Guard, base: &Path, words: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(base).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named("jail").parse().unwrap(), vmm, base);
    spec.owner = OWNER;
    spec.arguments = words.iter().map(Into::into).collect();
    spec
}

pub(crate) fn prepare(guard: &Guard, words: &[&str]) -> Created {
    guard.store().create(&spec(guard, &guard.base(), words)).unwrap()
}

/// A running VMM that is talked to: each `hold` among its words waits for [`Talk::go_on`].
pub(crate) struct Talk {
    pub(crate) running: Running,
    pub(crate) says: BufReader<PipeReader>,
    pub(crate) hears: PipeWriter,
}

impl Talk {
    pub(crate) fn begin(prepared: Created) -> Self {
        let ((stdin, hears), (says, stdout)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let streams = Streams {
            stdin: Some(OwnedFd::from(stdin)),
            stdout: Some(OwnedFd::from(stdout)),
            ..Streams::default()
        };
        Self { running: prepared.launch(streams).unwrap(), says: BufReader::new(says), hears }
    }

    pub(crate) fn go_on(&mut self) {
        self.hears.write_all(b".").unwrap();
    }

    /// The next line of the VMM.
    pub(crate) fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    pub(crate) fn end(mut self) {
        self.running.wait().unwrap();
        let report = self.running.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

pub(crate) fn at(path: &str) -> JailPath {
    JailPath::new(path).unwrap()
}

pub(crate) fn tear_down(prepared: Created) {
    let report = prepared.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// How many things are on the receipt for a place in the jail.
pub(crate) fn on_receipt(prepared: &Created, path: &str) -> usize {
    let receipt = serde_json::to_value(prepared.receipt()).unwrap();
    receipt["steps"].as_array().unwrap().iter().filter(|step| step["path"] == path).count()
}

/// The host's file has this power still, and what is in the jail at this place none, nor anything else that is an
/// extended attribute.
pub(crate) fn has_lost(root: &HostPath, name: &str, source: &Path, power: Powerful) {
    let copy = root.join(name);
    let (ours, theirs) = (copy.as_path().metadata().unwrap(), source.metadata().unwrap());
    assert_eq!(ours.mode() & 0o7000, 0, "{name}: {:o}", ours.mode());
    assert_ne!((ours.dev(), ours.ino()), (theirs.dev(), theirs.ino()), "{name} is the host's own file");
    assert_eq!(attributes(copy.as_path()), [""; 0], "{name}");
    match power {
        Powerful::SetUid => assert_eq!(theirs.mode() & 0o7777, 0o4755),
        Powerful::SetGid => assert_eq!(theirs.mode() & 0o7777, 0o2755),
        Powerful::Capability => assert_eq!(attributes(source), ["security.capability"]),
    }
}

/// That this and nothing else is said to have been taken away.
pub(crate) fn says(stripped: Option<&Stripped>, source: &Path, power: Powerful) {
    let said = serde_json::to_value(stripped).unwrap();
    assert_eq!(said, serde_json::json!({"path": source, "powers": [power.name()], "count": 1}));
}

/// Places something twice under one name, each time in a folder that is not there before, and takes it out.
pub(crate) fn replaces_and_is_taken_out(prepared: &mut Created, first: &Path, second: &Path, how: How) {
    let place = |prepared: &mut Created, source: &Path| {
        prepared.place(Placement::new(source).named("drives/a/image").how(how)).unwrap()
    };
    let placed = place(prepared, first);
    assert_eq!(placed, Placed { path: at("drives/a/image"), how, stripped: None });
    let image = prepared.root().join("drives/a/image").as_path().to_owned();
    let before = image.symlink_metadata().unwrap();
    place(prepared, second);
    let after = image.symlink_metadata().unwrap();
    assert_ne!((before.ino(), before.rdev()), (after.ino(), after.rdev()), "{how} was not replaced");
    assert_eq!(on_receipt(prepared, "/drives/a/image"), 1, "{how}: what was replaced is forgotten");
    prepared.unplace(&at("drives/a/image")).unwrap();
    assert!(image.symlink_metadata().is_err(), "{how} is still there");
    assert_eq!(on_receipt(prepared, "/drives/a/image"), 0, "{how} is still on the receipt");
    let error = prepared.unplace(&at("drives/a/image")).unwrap_err();
    assert_eq!(error.to_string(), "/drives/a/image was not placed into the jail");
    assert_eq!(image.parent().unwrap().read_dir().unwrap().count(), 0, "{how} left something beside it");
}
