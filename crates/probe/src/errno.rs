//! The names of error numbers, such as `EPERM`.

use rustix::io::Errno;
use std::io;

/// Expands to a match with arms like `Errno::PERM => "EPERM"`: rustix's names lack the E.
macro_rules! names {
    ($errno:expr; $($same:ident),* ; $($other:ident = $name:literal),*) => {
        match $errno {
            $(Errno::$same => concat!("E", stringify!($same)).to_owned(),)*
            $(Errno::$other => $name.to_owned(),)*
            other => format!("errno {}", other.raw_os_error()),
        }
    };
}

/// The name of an errno, such as `EPERM`; `errno 4095` for one without a name.
pub(crate) fn name(errno: Errno) -> String {
    names!(errno;
    ADDRINUSE, ADDRNOTAVAIL, ADV, AFNOSUPPORT, AGAIN, ALREADY, BADE, BADF, BADFD, BADMSG, BADR,
    BADRQC, BADSLT, BFONT, BUSY, CANCELED, CHILD, CHRNG, COMM, CONNABORTED, CONNREFUSED, CONNRESET,
    DEADLK, DESTADDRREQ, DOM, DOTDOT, DQUOT, EXIST, FAULT, FBIG, HOSTDOWN, HOSTUNREACH, HWPOISON,
    IDRM, ILSEQ, INPROGRESS, INTR, INVAL, IO, ISCONN, ISDIR, ISNAM, KEYEXPIRED, KEYREJECTED,
    KEYREVOKED, L2HLT, L2NSYNC, L3HLT, L3RST, LIBACC, LIBBAD, LIBEXEC, LIBMAX, LIBSCN, LNRNG, LOOP,
    MEDIUMTYPE, MFILE, MLINK, MSGSIZE, MULTIHOP, NAMETOOLONG, NAVAIL, NETDOWN, NETRESET, NETUNREACH,
    NFILE, NOANO, NOBUFS, NOCSI, NODATA, NODEV, NOENT, NOEXEC, NOKEY, NOLCK, NOLINK, NOMEDIUM,
    NOMEM, NOMSG, NONET, NOPKG, NOPROTOOPT, NOSPC, NOSR, NOSTR, NOSYS, NOTBLK, NOTCONN, NOTDIR,
    NOTEMPTY, NOTNAM, NOTRECOVERABLE, NOTSOCK, NOTTY, NOTUNIQ, NXIO, OPNOTSUPP, OVERFLOW, OWNERDEAD,
    PERM, PFNOSUPPORT, PIPE, PROTO, PROTONOSUPPORT, PROTOTYPE, RANGE, REMCHG, REMOTE, REMOTEIO,
    RESTART, RFKILL, ROFS, SHUTDOWN, SOCKTNOSUPPORT, SPIPE, SRCH, SRMNT, STALE, STRPIPE, TIME,
    TIMEDOUT, TOOMANYREFS, TXTBSY, UCLEAN, UNATCH, USERS, XDEV, XFULL;
    ACCESS = "EACCES", TOOBIG = "E2BIG")
}

/// The name of an error's errno; its text if it has none.
pub(crate) fn name_of(error: &io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| error.to_string(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_without_a_name_is_a_number() {
        assert_eq!(name(Errno::from_raw_os_error(4095)), "errno 4095");
    }

    #[test]
    fn an_error_without_an_errno_keeps_its_text() {
        assert_eq!(name_of(&io::Error::from_raw_os_error(2)), "ENOENT");
        assert_eq!(name_of(&io::Error::other("too odd")), "too odd");
    }
}
