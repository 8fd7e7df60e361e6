"""The values of JailerContext, which do not need the host (S1 to S5, S8, S10)."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any, Dict, List

import pytest

from stockade import JailerContext

FIELDS: Dict[str, Any] = {
    "uid": 1234,
    "gid": 1234,
    "chroot_base": "/srv/jailer",
    "daemonize": True,
    "new_pid_ns": False,
    "cgroups": None,
    "resource_limits": None,
    "cgroup_ver": None,
    "parent_cgroup": None,
}


def context(**fields: Any) -> JailerContext:
    return JailerContext("vm-1", "/nowhere/bin/stk-no-vmm", **fields)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_s1_a_field_has_its_default(field: str) -> None:
    assert getattr(context(), field) == FIELDS[field]


def test_s1_the_signature_is_firecrackers() -> None:
    parameters = list(inspect.signature(JailerContext.__init__).parameters)
    assert parameters == [
        "self", "jailer_id", "exec_file", "uid", "gid", "chroot_base", "netns", "daemonize", "new_pid_ns",
        "cgroups", "resource_limits", "cgroup_ver", "parent_cgroup", "share", "extra_args",
    ]  # fmt: skip
    kinds = inspect.signature(JailerContext.__init__).parameters
    assert kinds["share"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("method", "parameters"),
    {
        "construct_param_list": ["self"],
        "chroot_base_with_id": ["self"],
        "api_socket_path": ["self"],
        "chroot_path": ["self"],
        "chroot_ramfs_path": ["self"],
        "jailed_path": ["self", "file_path", "create", "create_jail"],
        "copy_into_root": ["self", "file_path", "create_jail"],
        "netns_file_path": ["self"],
        "netns_cmd_prefix": ["self"],
        "setup": ["self", "use_ramdisk"],
        "cleanup": ["self"],
    }.items(),
)
def test_s1_a_method_has_firecrackers_arguments(method: str, parameters: List[str]) -> None:
    found = inspect.signature(getattr(JailerContext, method)).parameters.values()
    firecrackers = [p for p in found if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [p.name for p in firecrackers] == parameters
    assert all(p.default in (inspect.Parameter.empty, False) for p in firecrackers)
    assert [p.name for p in found if p not in firecrackers] == (["share"] if method == "jailed_path" else [])


def test_s1_the_default_network_namespace_has_the_jails_name() -> None:
    assert context().netns == "vm-1"
    assert context(netns="other").netns == "other"
    assert context(netns="").netns == ""


@pytest.mark.parametrize("field", ["jailer_id", "exec_file", "api_socket_name", *sorted(FIELDS)])
def test_s1_a_field_can_be_set_to_none_and_back(field: str) -> None:
    jailer = context()
    before = getattr(jailer, field)
    setattr(jailer, field, None)
    assert getattr(jailer, field) is None
    setattr(jailer, field, before)
    assert getattr(jailer, field) == before


def test_s1_the_class_itself_has_every_field_as_none() -> None:
    for field in ["jailer_id", "exec_file", "netns", "extra_args", "api_socket_name", *FIELDS]:
        assert getattr(JailerContext, field) is None


def test_s1_further_keywords_are_arguments_for_the_vmm() -> None:
    assert context(no_api=None, level="Info").extra_args == {"no_api": None, "level": "Info"}


def test_s2_parameters_have_firecrackers_order() -> None:
    jailer = context(
        uid=1, gid=2, chroot_base="/b", netns="n", new_pid_ns=True, cgroups=["cpu.shares=2", "pids.max=9"],
        resource_limits=["no-file=1", "fsize=2"], cgroup_ver=2, parent_cgroup="a/b", **{"no-api": None, "k": "v"},
    )  # fmt: skip
    assert jailer.construct_param_list() == [
        "--id", "vm-1", "--exec-file", "/nowhere/bin/stk-no-vmm", "--uid", "1", "--gid", "2",
        "--chroot-base-dir", "/b", "--netns", "/var/run/netns/n", "--daemonize", "--new-pid-ns",
        "--parent-cgroup", "a/b", "--cgroup-version", "2", "--cgroup", "cpu.shares=2", "--cgroup", "pids.max=9",
        "--resource-limit", "no-file=1", "--resource-limit", "fsize=2", "--", "--no-api", "--k", "v",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("jailer_id", "--id"),
        ("exec_file", "--exec-file"),
        ("uid", "--uid"),
        ("gid", "--gid"),
        ("chroot_base", "--chroot-base-dir"),
        ("netns", "--netns"),
        ("daemonize", "--daemonize"),
    ],
)
def test_s2_a_field_that_is_none_is_left_out(field: str, flag: str) -> None:
    jailer = context()
    assert flag in jailer.construct_param_list()
    setattr(jailer, field, None)
    assert flag not in jailer.construct_param_list()


def test_s2_invalid_values_are_passed_on() -> None:
    jailer = context(uid="me", gid=-1, cgroups=["nonsense"], cgroup_ver=9)
    jailer.jailer_id = "a/b c"
    parameters = jailer.construct_param_list()
    for value in ["a/b c", "me", "-1", "nonsense", "9"]:
        assert value in parameters


def test_s2_an_empty_network_namespace_becomes_none() -> None:
    assert context(netns="").construct_param_list()[10:12] == ["--netns", "None"]


def test_s2_the_list_is_the_same_each_time() -> None:
    jailer = context(**{"api-sock": "a.sock"})
    assert jailer.construct_param_list() == jailer.construct_param_list()


def test_s3_the_api_socket_has_a_default() -> None:
    assert context().api_socket_name == "run/firecracker.socket"
    assert context().api_socket_path() == "/srv/jailer/stk-no-vmm/vm-1/root/run/firecracker.socket"


def test_s3_an_argument_for_the_vmm_renames_the_api_socket() -> None:
    jailer = context(**{"api-sock": "a.sock"})
    assert jailer.construct_param_list()[-3:] == ["--", "--api-sock", "a.sock"]
    assert jailer.api_socket_name == "a.sock"
    assert jailer.api_socket_path() == "/srv/jailer/stk-no-vmm/vm-1/root/a.sock"


def test_s3_a_socket_at_an_absolute_path_is_in_the_jail() -> None:
    jailer = context(**{"api-sock": "/run/a.sock"})
    assert jailer.api_socket_path() == "/srv/jailer/stk-no-vmm/vm-1/root/run/a.sock"


def test_fault_9_building_the_list_does_not_rename_the_socket() -> None:
    jailer = context(**{"api-sock": "a.sock"})
    before = jailer.api_socket_name, jailer.api_socket_path()
    jailer.construct_param_list()
    assert (jailer.api_socket_name, jailer.api_socket_path()) == before
    assert jailer.api_socket_name == "a.sock"
    plain = context()
    plain.api_socket_name = "b.sock"
    plain.construct_param_list()
    assert plain.api_socket_name == "b.sock"


def test_s4_the_jails_directory_is_below_base_and_executable() -> None:
    assert context().chroot_base_with_id() == "/srv/jailer/stk-no-vmm/vm-1"
    assert context(chroot_base="/b").chroot_base_with_id() == "/b/stk-no-vmm/vm-1"
    assert context(chroot_base=None).chroot_base_with_id() == "/srv/jailer/stk-no-vmm/vm-1"


def test_s4_paths_may_be_pathlibs() -> None:
    jailer = JailerContext("vm-1", Path("/nowhere/fc"), chroot_base=Path("/b"))
    assert jailer.chroot_base_with_id() == "/b/fc/vm-1"
    assert jailer.construct_param_list()[2:4] == ["--exec-file", "/nowhere/fc"]


def test_s5_the_paths_in_the_jail() -> None:
    jailer = context()
    assert jailer.chroot_path() == "/srv/jailer/stk-no-vmm/vm-1/root"
    assert jailer.chroot_ramfs_path() == "/srv/jailer/stk-no-vmm/vm-1/root/ramfs"
    jailer.ramfs_subdir_name = "memory"
    assert jailer.chroot_ramfs_path() == "/srv/jailer/stk-no-vmm/vm-1/root/memory"


def test_s5_paths_follow_the_fields() -> None:
    jailer = context()
    jailer.jailer_id, jailer.chroot_base = "vm-2", "/c"
    assert jailer.chroot_path() == "/c/stk-no-vmm/vm-2/root"


def test_s6_a_path_in_the_jail_is_the_files_name_in_the_root() -> None:
    assert context().jailed_path("/images/vmlinux") == "/vmlinux"
    assert context().jailed_path(Path("images/a/vmlinux")) == "/vmlinux"


def test_s8_the_network_namespaces_file_and_prefix() -> None:
    assert context().netns_file_path() == "/var/run/netns/vm-1"
    assert context().netns_cmd_prefix() == "ip netns exec vm-1 "


@pytest.mark.parametrize("netns", [None, ""])
def test_s8_without_a_namespace_there_is_neither(netns: Any) -> None:
    jailer = context()
    jailer.netns = netns
    assert jailer.netns_file_path() is None
    assert jailer.netns_cmd_prefix() == ""


def test_s10_no_ramfs_is_used_before_setup() -> None:
    assert context().uses_ramfs is False


def test_s11_cleanup_without_setup_does_nothing() -> None:
    jailer = context()
    jailer.cleanup()
    jailer.cleanup()


@pytest.mark.parametrize(
    ("field", "value", "call"),
    [
        ("jailer_id", 5, JailerContext.chroot_path),
        ("jailer_id", None, JailerContext.chroot_path),
        ("exec_file", None, JailerContext.chroot_base_with_id),
        ("exec_file", 7, JailerContext.chroot_base_with_id),
        ("chroot_base", 7, JailerContext.chroot_base_with_id),
        ("api_socket_name", None, JailerContext.api_socket_path),
        ("ramfs_subdir_name", None, JailerContext.chroot_ramfs_path),
        ("cgroups", "cpu.shares=2", JailerContext.construct_param_list),
        ("resource_limits", 5, JailerContext.construct_param_list),
        ("uid", None, lambda jailer: jailer.copy_into_root("/etc/passwd")),
        ("gid", "1", lambda jailer: jailer.jailed_path("/etc/passwd", create=True)),
        ("uid", True, lambda jailer: jailer.setup(use_ramdisk=True)),
    ],
)
def test_an_error_about_a_type_names_the_field(field: str, value: Any, call: Any) -> None:
    jailer = context()
    setattr(jailer, field, value)
    with pytest.raises(TypeError, match=rf"^{field} must be "):
        call(jailer)


@pytest.mark.parametrize(
    ("field", "value", "call"),
    [
        ("jailer_id", "../../b", lambda jailer: jailer.jailed_path("/etc/passwd", create=True)),
        ("jailer_id", "/b", lambda jailer: jailer.copy_into_root("/etc/passwd")),
        ("exec_file", "..", lambda jailer: jailer.copy_into_root("/etc/passwd")),
    ],
)
def test_an_error_about_a_value_names_the_field(field: str, value: Any, call: Any) -> None:
    jailer = context()
    setattr(jailer, field, value)
    with pytest.raises(ValueError, match=rf"^{field} must be "):
        call(jailer)


def test_a_file_path_of_a_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="^file_path must be a str or a path, not int"):
        context().jailed_path(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0, 1, "own", "no", []])
def test_a_policy_of_a_wrong_type_is_refused(share: Any, tmp_path: Path) -> None:
    # Before anything is created.
    jailer = context(chroot_base=str(tmp_path / "base"), share=share)
    with pytest.raises(TypeError, match="^share must be a bool or None, not "):
        jailer.jailed_path("/etc/passwd", create=True, create_jail=True)
    assert not (tmp_path / "base").exists()


def test_a_copy_has_the_fields() -> None:
    jailer = context(level="Info", share=True)
    jailer.api_socket_name = "x.sock"
    for other in (copy.copy(jailer), copy.deepcopy(jailer), pickle.loads(pickle.dumps(jailer))):
        assert other.construct_param_list() == jailer.construct_param_list()
        assert other.api_socket_name == "x.sock" and other.share is True


def test_a_class_may_set_the_policy() -> None:
    class Shares(JailerContext):
        share = True

    assert Shares("vm-1", "/x").share is True and context().share is None
    assert Shares("vm-1", "/x", share=False).share is False
