//! Progress of long copies.

use super::*;

use std::ops::ControlFlow;

use rustix::io::Errno;
use stockade::{Error, Operation, Progress};

#[test]
fn a_long_copy_reports_its_progress_many_times() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let (image, directory) = (guard.file("image", ""), guard.directory().join("images"));
        let size = 100 << 20;
        fs::write(&image, vec![7; size]).unwrap();
        fs::create_dir(&directory).unwrap();
        for name in ["one", "two"] {
            fs::hard_link(&image, directory.join(name)).unwrap();
        }
        for (source, total) in [(&image, size), (&directory, 2 * size)] {
            let mut reports = Vec::new();
            let copy = Placement::new(source).how(How::Copy);
            created
                .place_with_progress(copy, &mut |progress| {
                    reports.push(progress);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let total = total as u64;
            assert!(reports.len() >= 7, "{reports:?}");
            assert!(reports.is_sorted_by_key(|progress| progress.done), "{reports:?}");
            assert!(reports.iter().all(|progress| progress.done <= progress.total), "{reports:?}");
            assert_eq!(reports.last(), Some(&Progress { done: total, total }));
        }
        tear_down(created);
    });
}

#[test]
fn a_cancelled_copy_leaves_nothing() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let (image, directory) = (guard.file("image", ""), guard.directory().join("images"));
        fs::write(&image, vec![7; 40 << 20]).unwrap();
        fs::create_dir(&directory).unwrap();
        fs::hard_link(&image, directory.join("one")).unwrap();
        let root = created.receipt().root();
        let entries =
            || fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let before = entries();
        for source in [&image, &directory] {
            let mut reports = 0;
            let copy = Placement::new(source).how(How::Copy);
            let cancelled = created.place_with_progress(copy, &mut |_| {
                reports += 1;
                if reports < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            let Err(Error::Operation { operation: Operation::Copy, cause: Errno::CANCELED, .. }) = cancelled
            else {
                panic!("{cancelled:?}")
            };
            assert_eq!((reports, entries()), (2, before.clone()));
        }
        tear_down(created);
    });
}
