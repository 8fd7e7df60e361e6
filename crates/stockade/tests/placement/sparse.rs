//! Sparse images: only their data is copied, within and between filesystems.

use super::*;

use std::os::unix::fs::FileExt;
use std::time::Instant;

const SIZE: u64 = 10 << 30;
/// The offsets of the data: at the beginning, in the middle, and at the very end.
const DATA: [u64; 3] = [0, SIZE / 2 + 12_345, SIZE - 4];

fn image(directory: &Path) -> PathBuf {
    let path = directory.join("disk.img");
    let disk = fs::File::create(&path).unwrap();
    disk.set_len(SIZE).unwrap();
    for offset in DATA {
        disk.write_all_at(b"data", offset).unwrap();
    }
    path
}

#[test]
fn a_sparse_image_remains_sparse_also_on_another_filesystem() {
    privileged!(guard, {
        let shm = PathBuf::from("/dev/shm").join(guard.name());
        fs::create_dir(&shm).unwrap();
        testkit::set_mode(&shm, 0o755);
        let (disk, memory) = (image(guard.directory()), image(&shm));
        let bases = [guard.base(), shm.join("base")];
        for (base, source) in [(0, &disk), (0, &memory), (1, &disk), (1, &memory)] {
            let mut created = guard.store().create(&spec(&guard, &bases[base], &[])).unwrap();
            let begin = Instant::now();
            created.place(Placement::new(source).how(How::Copy)).unwrap();
            let taken = begin.elapsed();
            let copied = fs::File::open(created.root().join("disk.img")).unwrap();
            let facts = copied.metadata().unwrap();
            testkit::tell(&format!(
                "a sparse image of 10 GiB was copied from {} to {} in {taken:?}",
                source.display(),
                bases[base].display()
            ));
            assert_eq!(facts.len(), SIZE);
            assert!(facts.blocks() * 512 <= 1 << 20, "{} blocks are more than the data", facts.blocks());
            for offset in DATA {
                let mut found = [0; 4];
                copied.read_exact_at(&mut found, offset).unwrap();
                assert_eq!(&found, b"data", "at {offset}");
            }
            tear_down(created);
        }
        fs::remove_dir_all(&shm).unwrap();
    });
}
