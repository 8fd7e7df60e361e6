# In the Debian that was made for it: installs the package, tries it, purges it, and looks for what is left.

# The files there are, but for those in which dpkg, apt and man keep their books.
files() {
    find / -xdev ! -path '/tmp/*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/var/cache/*' \
        ! -path '/var/lib/apt/*' ! -path '/run/*' | sort
}
fail() {
    echo "package: $*" >&2
    exit 1
}
# Runs quietly; what failed tells what it said.
quietly() {
    "$@" >/tmp/said 2>&1 || { cat /tmp/said >&2; fail "failed: $*"; }
}

files >/tmp/before
# Firecracker's own jailer is not in the way, and has to be left alone. It comes first, then goes, then comes again.
echo firecracker >/usr/bin/jailer
quietly apt-get install --yes /tmp/stockade.deb
[ "$(cat /usr/bin/jailer)" = firecracker ] || fail "/usr/bin/jailer of another was replaced"
quietly apt-get purge --yes stockade
[ "$(cat /usr/bin/jailer)" = firecracker ] || fail "/usr/bin/jailer of another was removed"
rm /usr/bin/jailer

quietly apt-get install --yes /tmp/stockade.deb
echo "installed: $(stockade --version), $(jailer --version)"
stockade host-setup
stockade demo
case "$(jailer --version)" in "Jailer v"*) ;; *) fail "jailer is not the drop-in" ;; esac
quietly dpkg --verify stockade
[ ! -s /tmp/said ] || fail "files are not as packed: $(cat /tmp/said)"

for page in stockade stockade-run stockade-jailer jailer; do
    quietly man "$page"
    grep -q '^SYNOPSIS' /tmp/said || fail "man $page has no synopsis"
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
    [ -s "/usr/lib/systemd/system/$unit" ] || fail "there is no $unit"
done
[ -L /etc/systemd/system/timers.target.wants/stockade-gc.timer ] || fail "stockade-gc.timer is not enabled"

# The unit's command line, as systemd would fill it in.
printf '[jail]\nid = "vm-1"\nexec-file = "/usr/bin/true"\n' >/etc/stockade/jails/vm-1.toml
quietly sh -c "$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/stockade@.service | sed 's/%i/vm-1/')"
rm /etc/stockade/jails/vm-1.toml

# That of the other service, and what systemd-tmpfiles makes where there is systemd.
quietly sh -c "$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/stockade-gc.service)"
install -d -m 0700 /var/lib/stockade

# Jails that only stockade can remove keep it where it is.
stockade create --id vm-1 --exec-file /usr/bin/sleep >/dev/null
if apt-get purge --yes stockade >/tmp/said 2>&1; then fail "was removed while there was a jail"; fi
grep -q "stockade rm --force" /tmp/said || fail "does not say why it was not removed: $(cat /tmp/said)"
stockade rm --force vm-1

quietly apt-get purge --yes stockade
[ ! -e /run/stockade ] || fail "the host set-up is left"
files >/tmp/after
diff /tmp/before /tmp/after || fail "the purge left what is behind >, or took what is behind <"
echo "purged: nothing is left"
