//! Files and directories.

use super::*;

#[test]
fn a_name_after_a_colon_is_refused_with_the_right_form() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--place", "/etc/passwd:/passwd");
        let said = "--place /etc/passwd:/passwd: no such file; a name in the jail follows '=', as in \
                    '/etc/passwd=/passwd'";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_missing_executable_is_named() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--exec-file", "/no/such/vmm");
        refused(
            &guard,
            &line,
            "--exec-file: cannot open '/no/such/vmm': no such file or directory; check the path",
        );
        let line = Line::good(&guard).with("--exec-file", "no-such-vmm");
        let here = std::env::current_dir().unwrap();
        let said = format!(
            "--exec-file: cannot open '{}/no-such-vmm': no such file or directory; use a path, because the executable \
             is not searched for in PATH",
            here.display()
        );
        refused(&guard, &line, &said);
    });
}

#[test]
fn a_directory_is_no_executable() {
    privileged!(guard, {
        refused(
            &guard,
            &Line::good(&guard).with("--exec-file", "/usr/bin"),
            "--exec-file: '/usr/bin' is not a regular file; name a file",
        );
    });
}

#[test]
fn an_unusable_base_directory_is_named() {
    privileged!(guard, {
        let file = guard.file("file", "");
        let line = Line::good(&guard).with("--chroot-base-dir", file.display().to_string());
        refused(
            &guard,
            &line,
            &format!("--chroot-base-dir: '{}' is not a directory; name a directory", file.display()),
        );
        // Not even root can create directories in /proc.
        let line = Line::good(&guard).with("--chroot-base-dir", "/proc/jails");
        let output = line.run();
        assert_eq!(output.code, 125);
        assert!(
            output.stderr.starts_with("stockade: cannot create directory '/proc/jails"),
            "{}",
            output.stderr
        );
        assert_eq!(output.stderr.lines().count(), 1);
        nothing_created(&guard);
    });
}

#[test]
fn an_unusable_state_directory_is_named() {
    privileged!(guard, {
        let file = guard.file("file", "");
        let line = Line::good(&guard).with("--state-dir", file.display().to_string());
        refused(
            &guard,
            &line,
            &format!("--state-dir: '{}' is not a directory; name a directory", file.display()),
        );
    });
}

#[test]
fn a_file_that_cannot_be_placed_is_named_and_no_jail_left() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--place", "/no/such/image");
        let said =
            "--place /no/such/image: cannot open '/no/such/image': no such file or directory; check the path";
        refused(&guard, &line, said);
        let line = Line::good(&guard).with("--place", "/etc/passwd=../escape");
        let said = "--place /etc/passwd: '../escape' is not a path inside a jail; use one without '..'";
        refused(&guard, &line, said);
        let name = OsString::from_vec(b"/etc/passwd=p\xff".to_vec());
        let arguments =
            Line::good(&guard).arguments("run").into_iter().map(Into::into).chain(["--place".into(), name]);
        let output = run("stockade", &arguments.collect::<Vec<OsString>>());
        let said = "stockade: --place /etc/passwd: 'p\u{fffd}' is not UTF-8; rename it\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
        nothing_created(&guard);
        let socket = guard.directory().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let line = Line::good(&guard).with("--place", socket.display().to_string());
        refused(
            &guard,
            &line,
            &format!(
                "--place {0}: 1234:1234 cannot open '{0}', and a bind does not change its owner or mode; change them, use \
                 another method, or share it if it was created for this jail",
                socket.display()
            ),
        );
        drop(listener);
        let directory = guard.directory().join("directory");
        std::fs::create_dir(&directory).unwrap();
        let link = directory.join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let line = Line::good(&guard).with("--place", directory.display().to_string());
        let said = format!(
            "--place {}: '{}' is a symbolic link to '/etc/passwd', which is not in the placed directory; replace it \
             with the file",
            directory.display(),
            link.display()
        );
        refused(&guard, &line, &said);
    });
}

#[test]
fn a_noexec_base_directory_is_named() {
    privileged!(guard, {
        let base = guard.base();
        let inner =
            Line::good(&guard).arguments("run").iter().map(|word| format!("'{word}'")).collect::<Vec<_>>();
        let script = format!(
            "mkdir {0} && mount -t tmpfs -o noexec none {0} && exec {1} {2}",
            base.display(),
            program("stockade").display(),
            inner.join(" "),
        );
        let output = run_with(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        let said = format!(
            "stockade: cannot execute in the jail: /stockade-probe: permission denied: '{}' is mounted noexec; use \
             another --chroot-base-dir or remount it with exec\n",
            base.display()
        );
        assert_eq!((output.code, output.stderr), (125, said));
        std::fs::remove_dir(base).unwrap();
        assert!(!guard.state().exists());
    });
}

#[test]
fn a_path_that_is_too_long_is_refused_before_creation() {
    privileged!(guard, {
        let deep = format!("{}/{}", guard.directory().display(), vec!["x".repeat(200); 19].join("/"));
        let line = Line::good(&guard).with("--chroot-base-dir", &*deep);
        let length = deep.len() + "/stockade-probe/".len() + guard.named("jail").len() + "/root".len();
        let said = format!(
            "--chroot-base-dir: the path of the jail's root would have {length} bytes, more than the limit of 3839; use \
             a shorter directory"
        );
        refused(&guard, &line, &said);
        let wide = format!("/{}", "x".repeat(256));
        let line = Line::good(&guard).with("--chroot-base-dir", &*wide);
        let said = format!("--chroot-base-dir: cannot open '{wide}': file name too long");
        refused(&guard, &line, &said);
    });
}

#[test]
fn a_socket_path_that_is_too_long_is_a_warning() {
    privileged!(guard, {
        // Its profile, by the name of the executable, has a socket.
        let vmm = guard.directory().join("firecracker");
        std::fs::copy(program("stockade-probe"), &vmm).unwrap();
        let base = guard.base().join("b".repeat(90)).display().to_string();
        let mut line = Line::good(&guard).with("--exec-file", vmm.display().to_string());
        line = line.with("--chroot-base-dir", &base);
        let output = run("stockade", &[line.arguments("run"), vec!["--".into(), "exit=0".into()]].concat());
        let length = format!("{base}/firecracker/{}/root/run/firecracker.socket", guard.named("jail")).len();
        let said = format!(
            "stockade: the VMM's socket '/run/firecracker.socket' has a path of {length} bytes on the host, and a \
             process can connect to 107 bytes at most; use a shorter --chroot-base-dir or --id\n"
        );
        assert_eq!((output.code, output.stderr), (0, said));
        std::fs::remove_file(&vmm).unwrap();
        nothing_created(&guard);
    });
}
