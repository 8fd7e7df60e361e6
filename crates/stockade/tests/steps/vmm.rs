//! The VMM's process as a step. The launch starts it, so a stand-in is used here.

use super::*;

/// The stand-in for the VMM.
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
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::Removed);
        assert!(!process.exists(), "it is killed and reaped");
    });
}

#[test]
fn tolerates_undo_without_apply() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        // A pid that now belongs to another process.
        let (mut sleeper, step) = sleeper();
        let Step::Vmm(mut vmm) = step else { unreachable!() };
        vmm.process.started += 1;
        assert_eq!(Step::from(vmm).undo(&ground.ctx), UndoOutcome::NeverThere);
        assert!(sleeper.try_wait().unwrap().is_none(), "it was not the VMM, and is alive");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    });
}

#[test]
fn reaps_a_process_that_exited() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        for is_monitor in [false, true] {
            let (mut child, step) = sleeper();
            let Step::Vmm(mut vmm) = step else { unreachable!() };
            if is_monitor {
                // The VMM itself has exited, and was the monitor's child.
                vmm.monitor = Some(vmm.process);
                vmm.process.started += 1;
            }
            child.kill().unwrap();
            let process = Path::new("/proc").join(child.id().to_string());
            while !std::fs::read_to_string(process.join("stat")).unwrap().contains(") Z ") {
                std::thread::yield_now();
            }
            assert_eq!(Step::from(vmm).undo(&ground.ctx), UndoOutcome::NeverThere);
            assert!(!process.exists(), "no zombie remains");
        }
    });
}

#[test]
fn undoes_twice() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let (_sleeper, step) = sleeper();
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::Removed);
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::NeverThere);
    });
}

#[test]
fn survives_serialisation() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let (_sleeper, step) = sleeper();
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::Removed);
    });
}
