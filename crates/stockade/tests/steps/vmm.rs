//! The VMM's process as a step: the launch starts it, so here another process stands for it.

use super::*;

/// The launch starts the VMM, so here another process stands for it.
fn sleeper() -> (std::process::Child, Step) {
    let sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(sleeper.id().try_into().unwrap()).unwrap();
    let vmm = Vmm { process: ProcessRef::of(pid), search: false, monitor: None };
    (sleeper, vmm.into())
}

#[test]
fn applies_and_undoes() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let (sleeper, step) = sleeper();
        apply_all(&ground, std::slice::from_ref(&step));
        let process = Path::new("/proc").join(sleeper.id().to_string());
        assert!(process.exists());
        assert_eq!(step.undo(&ground.site), UndoOutcome::Removed);
        assert!(!process.exists(), "it is ended and reaped");
    });
}

#[test]
fn undoes_what_never_happened() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        // A pid that is another process's by now.
        let (mut sleeper, step) = sleeper();
        let Step::Vmm(mut vmm) = step else { unreachable!() };
        vmm.process.started += 1;
        assert_eq!(Step::from(vmm).undo(&ground.site), UndoOutcome::NeverThere);
        assert!(sleeper.try_wait().unwrap().is_none(), "it was not the VMM, and lives");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    });
}

#[test]
fn reaps_what_ended_by_itself() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        for is_monitor in [false, true] {
            let (mut child, step) = sleeper();
            let Step::Vmm(mut vmm) = step else { unreachable!() };
            if is_monitor {
                // The VMM itself is gone, and was the monitor's child.
                vmm.monitor = Some(vmm.process);
                vmm.process.started += 1;
            }
            child.kill().unwrap();
            let process = Path::new("/proc").join(child.id().to_string());
            while !std::fs::read_to_string(process.join("stat")).unwrap().contains(") Z ") {
                std::thread::yield_now();
            }
            assert_eq!(Step::from(vmm).undo(&ground.site), UndoOutcome::NeverThere);
            assert!(!process.exists(), "no zombie stays");
        }
    });
}

#[test]
fn undoes_twice() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let (_sleeper, step) = sleeper();
        assert_eq!(step.undo(&ground.site), UndoOutcome::Removed);
        assert_eq!(step.undo(&ground.site), UndoOutcome::NeverThere);
    });
}

#[test]
fn survives_being_written_down() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let (_sleeper, step) = sleeper();
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
        assert_eq!(step.undo(&ground.site), UndoOutcome::Removed);
    });
}
