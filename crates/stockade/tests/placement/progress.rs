//! What a caller is told while a long copy goes on.

use super::*;

use stockade::Progress;

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
            prepared.place_with_progress(copy, &mut |progress| told.push(progress)).unwrap();
            let total = total as u64;
            assert!(told.len() >= 7, "{told:?}");
            assert!(told.is_sorted_by_key(|progress| progress.done), "{told:?}");
            assert!(told.iter().all(|progress| progress.done <= progress.total), "{told:?}");
            assert_eq!(told.last(), Some(&Progress { done: total, total }));
        }
        tear_down(prepared);
    });
}
