//! What a caller is told while a long copy goes on.

use super::*;

use std::ops::ControlFlow;

use rustix::io::Errno;
use stockade::{Error, Operation, Progress};

#[test]
fn a_long_copy_tells_many_times_how_far_it_has_come() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let (image, directory) = (guard.file("image", ""), guard.directory().join("images"));
        let size = 100 << 20;
        fs::write(&image, vec![7; size]).unwrap();
        fs::create_dir(&directory).unwrap();
        for name in ["one", "two"] {
            fs::hard_link(&image, directory.join(name)).unwrap();
        }
        for (source, total) in [(&image, size), (&directory, 2 * size)] {
            let mut told = Vec::new();
            let copy = Placement::new(source).how(How::Copy);
            prepared
                .place_with_progress(copy, &mut |progress| {
                    told.push(progress);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let total = total as u64;
            assert!(told.len() >= 7, "{told:?}");
            assert!(told.is_sorted_by_key(|progress| progress.done), "{told:?}");
            assert!(told.iter().all(|progress| progress.done <= progress.total), "{told:?}");
            assert_eq!(told.last(), Some(&Progress { done: total, total }));
        }
        tear_down(prepared);
    });
}

#[test]
fn a_copy_that_is_broken_off_leaves_nothing_of_itself() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let (image, directory) = (guard.file("image", ""), guard.directory().join("images"));
        fs::write(&image, vec![7; 40 << 20]).unwrap();
        fs::create_dir(&directory).unwrap();
        fs::hard_link(&image, directory.join("one")).unwrap();
        let root = prepared.receipt().root();
        let there =
            || fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let before = there();
        for source in [&image, &directory] {
            let mut told = 0;
            let copy = Placement::new(source).how(How::Copy);
            let broken_off = prepared.place_with_progress(copy, &mut |_| {
                told += 1;
                if told < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            let Err(Error::Operation { operation: Operation::Copy, cause: Errno::CANCELED, .. }) = broken_off
            else {
                panic!("{broken_off:?}")
            };
            assert_eq!((told, there()), (2, before.clone()));
        }
        tear_down(prepared);
    });
}
