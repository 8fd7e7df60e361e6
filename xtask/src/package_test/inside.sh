# Inside the separate Debian: installs, tries and purges the package, and searches for leftovers.

# Lists all files except the records of dpkg, apt and man.
files() {
    find / -xdev ! -path '/tmp/*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/var/cache/*' \
        ! -path '/var/lib/apt/*' ! -path '/run/*' | sort
}
fail() {
    echo "package: $*" >&2
    exit 1
}
# Runs a command, and shows its output only if it fails.
quietly() {
    "$@" >/tmp/output 2>&1 || { cat /tmp/output >&2; fail "failed: $*"; }
}

files >/tmp/before
# An existing jailer of Firecracker must stay. Then the package is installed again without one.
echo firecracker >/usr/bin/jailer
quietly apt-get install --yes /tmp/stockade.deb
[ "$(cat /usr/bin/jailer)" = firecracker ] || fail "the existing /usr/bin/jailer was replaced"
quietly apt-get purge --yes stockade
[ "$(cat /usr/bin/jailer)" = firecracker ] || fail "the existing /usr/bin/jailer was removed"
rm /usr/bin/jailer

quietly apt-get install --yes /tmp/stockade.deb
echo "installed: $(stockade --version), $(jailer --version)"
stockade host-setup
stockade demo
case "$(jailer --version)" in "Jailer v"*) ;; *) fail "jailer is not the drop-in" ;; esac
quietly dpkg --verify stockade
[ ! -s /tmp/output ] || fail "files differ from the package: $(cat /tmp/output)"

for page in stockade stockade-run stockade-jailer jailer; do
    quietly man "$page"
    grep -q '^SYNOPSIS' /tmp/output || fail "man $page has no synopsis"
done
quietly whatis stockade-gc
bash -ec '
    . /usr/share/bash-completion/bash_completion
    _completion_loader stockade || [ $? = 124 ]
    COMP_WORDS=(stockade host) COMP_CWORD=1 COMP_TYPE=9
    _clap_complete_stockade stockade host stockade
    [ "${COMPREPLY[*]}" = host-setup ]
' || fail "bash does not complete"
[ -s /usr/share/zsh/vendor-completions/_stockade ] || fail "no completions for zsh"
[ -s /usr/share/fish/vendor_completions.d/stockade.fish ] || fail "no completions for fish"
for unit in stockade-gc.service stockade-gc.timer stockade-host-setup.service stockade@.service; do
    [ -s "/usr/lib/systemd/system/$unit" ] || fail "$unit is missing"
done
[ -L /etc/systemd/system/timers.target.wants/stockade-gc.timer ] || fail "stockade-gc.timer is not enabled"

# The unit's command line with systemd's values.
printf '[jail]\nid = "vm-1"\nexec-file = "/usr/bin/true"\n' >/etc/stockade/jails/vm-1.toml
quietly sh -c "$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/stockade@.service | sed 's/%i/vm-1/')"
rm /etc/stockade/jails/vm-1.toml

# The command line of the other service, with the directory that systemd-tmpfiles would create.
quietly sh -c "$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/stockade-gc.service)"
install -d -m 0700 /var/lib/stockade

# Existing jails prevent the removal, because only stockade can remove them.
stockade create --id vm-1 --exec-file /usr/bin/sleep >/dev/null
if apt-get purge --yes stockade >/tmp/output 2>&1; then fail "the package was removed despite an existing jail"; fi
grep -q "stockade rm --force" /tmp/output || fail "the refusal gives no reason: $(cat /tmp/output)"
stockade rm --force vm-1

quietly apt-get purge --yes stockade
[ ! -e /run/stockade ] || fail "the host set-up remains"
files >/tmp/after
diff /tmp/before /tmp/after || fail "the purge left the files after >, or removed the files after <"
echo "purged: nothing remains"
