//! Signs of life of a jail whose receipt has another boot id.

use crate::spec::JailPath;
use crate::state::receipt::Receipt;
use crate::steps::{StepContext, may_be_in_use};
use crate::sys::jail_root::JailRoot;
use crate::sys::rooted::{has_root, rooted_at};

impl Receipt {
    /// Whether the jail shows that it is alive, and so of this boot: by a process in its cgroup, or in its tree.
    ///
    /// What cannot be examined counts as alive. The cheap signs are first.
    pub(super) fn shows_life(&self) -> bool {
        self.cgroups().any(|cgroup| may_be_in_use(&cgroup, &self.nonce)) || self.has_live_tree()
    }

    fn has_live_tree(&self) -> bool {
        // Not the jail's own context: that one asks whether the receipt is of this boot.
        let ctx = StepContext::new(self.layout.clone(), Some(self.nonce.clone()));
        match ctx.own_tree() {
            Ok(Some(tree)) => self.has_vmm_in(tree) || self.runs_executable_of(tree) || has_processes(tree),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Whether the VMM on the receipt is alive and in the tree. After a reboot its pid and its start time may be another
    /// process's.
    fn has_vmm_in(&self, tree: &JailRoot) -> bool {
        let alive = self.vmm().filter(|vmm| self.is_of_this_namespace() && vmm.is_alive());
        alive.is_some_and(|vmm| has_root(vmm.pid, tree.root()).unwrap_or(true))
    }

    /// Whether the executable in the tree is being executed, also in another pid namespace. With another name, for
    /// example on the host, it may be executed there.
    fn runs_executable_of(&self, tree: &JailRoot) -> bool {
        let executable = JailPath::new(self.layout.exec_name());
        executable.is_ok_and(|path| tree.links_of_busy(&path) == Some(1))
    }
}

/// Whether a process that this process can inspect is in the tree, for example a child of the VMM.
fn has_processes(tree: &JailRoot) -> bool {
    rooted_at(tree.root()).is_ok_and(|rooted| !rooted.found.is_empty())
}
