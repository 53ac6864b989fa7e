package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"

	"github.com/csikit/csikit/backends"
)

// ExitError is a tool that ended with a code other than 0, by a signal, or
// because Run ended it. Nothing in it is secret.
type ExitError struct {
	Argv   string // redacted
	Code   int    // -1: no exit code
	Signal string // "killed", when a signal ended it
	Stderr string // the last lines; of stdout, when stderr was empty
	Cause  error  // why Run ended it; nil: it ended by itself
	Stuck  bool   // Run could not end it, and it may still be at work
}

func (e *ExitError) Error() string {
	s := e.Argv
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	switch {
	case e.Stuck:
		s += ": hangs in the kernel and cannot be killed"
	case e.Signal != "":
		s += ": signal: " + e.Signal
	default:
		s += fmt.Sprintf(": exit status %d", e.Code)
	}
	if e.Stderr != "" {
		s += ": " + strings.ReplaceAll(e.Stderr, "\n", "; ")
	}
	return s
}

// Unwrap gives the cause, and backends.ErrUnavailable for a stuck tool: nobody
// knows what it will have done.
func (e *ExitError) Unwrap() []error {
	var errs []error
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	if e.Stuck {
		errs = append(errs, backends.ErrUnavailable)
	}
	return errs
}

// startError is a tool that was not started.
type startError struct {
	argv string
	err  error
}

func (e *startError) Error() string { return e.argv + ": not started: " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// NotInstalledError is a tool that this machine or image lacks. It is
// backends.ErrUnavailable: that nothing could look does not mean that nothing
// is there.
type NotInstalledError struct {
	Tool    string
	Package string // where Debian has it; "": not known
}

func (e *NotInstalledError) Error() string {
	if e.Package == "" {
		return fmt.Sprintf("%s is not installed on this node", e.Tool)
	}
	return fmt.Sprintf("%s is not installed on this node (Debian package %s)", e.Tool, e.Package)
}

// Is matches exec.ErrNotFound, fs.ErrNotExist and backends.ErrUnavailable.
func (e *NotInstalledError) Is(target error) bool {
	return target == exec.ErrNotFound || target == fs.ErrNotExist || target == backends.ErrUnavailable
}

// outcome turns what is known of a run into what Run returns.
func (p *process) outcome(argv string, red *redactor, cause error, stuck bool) (Result, error) {
	out, cutOut := p.stdout.bytes()
	errOut, cutErr := p.stderr.bytes()
	res := Result{Stdout: out, Stderr: errOut, Truncated: cutOut || cutErr, Code: -1}
	e := &ExitError{Argv: argv, Code: -1, Cause: cause, Stuck: stuck, Stderr: red.tail(errOut)}
	if e.Stderr == "" {
		e.Stderr = red.tail(out)
	}
	if stuck {
		return res, e
	}
	// A daemon that kept the pipe open is no failure of the tool.
	var exit *exec.ExitError
	if err := p.waitErr; err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return res, fmt.Errorf("%s: %w", argv, err)
	}
	res.Code = p.cmd.ProcessState.ExitCode()
	e.Code = res.Code
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal().String()
	}
	if cause == nil && res.Code == 0 {
		return res, nil
	}
	return res, e
}

// debianPackage knows where storage tools come from.
func debianPackage(tool string) string {
	switch tool {
	case "mkfs.ext2", "mkfs.ext3", "mkfs.ext4", "mke2fs", "e2fsck", "fsck.ext2", "fsck.ext3", "fsck.ext4", "resize2fs", "tune2fs", "dumpe2fs", "debugfs", "chattr", "lsattr":
		return "e2fsprogs"
	case "mkfs.xfs", "fsck.xfs", "xfs_repair", "xfs_growfs", "xfs_admin", "xfs_io", "xfs_db", "xfs_info", "xfs_freeze", "xfs_quota":
		return "xfsprogs"
	case "mkfs.btrfs", "fsck.btrfs", "btrfs", "btrfstune":
		return "btrfs-progs"
	case "mkfs.vfat", "mkfs.fat", "fsck.vfat":
		return "dosfstools"
	case "mkfs.f2fs", "fsck.f2fs":
		return "f2fs-tools"
	case "lvm", "lvs", "lvcreate", "lvremove", "lvchange", "lvextend", "lvresize", "lvrename", "lvconvert", "vgs", "vgcreate", "vgremove", "vgchange", "vgextend", "vgck", "pvs", "pvcreate", "pvremove", "pvresize", "dmeventd":
		return "lvm2"
	case "thin_check", "thin_delta", "thin_dump", "thin_ls", "thin_repair":
		return "thin-provisioning-tools"
	case "mount.nfs", "mount.nfs4", "umount.nfs", "umount.nfs4", "showmount", "rpc.statd":
		return "nfs-common"
	case "mount", "umount", "losetup", "swapon":
		return "mount"
	case "blkid", "wipefs", "fsfreeze", "fstrim", "blkdiscard", "blockdev", "lsblk", "findmnt", "fsck", "mkfs", "unshare", "nsenter":
		return "util-linux"
	case "sfdisk", "fdisk":
		return "fdisk"
	case "sgdisk":
		return "gdisk"
	case "multipath", "multipathd":
		return "multipath-tools"
	case "cryptsetup":
		return "cryptsetup-bin"
	case "mount.cifs":
		return "cifs-utils"
	case "iscsiadm":
		return "open-iscsi"
	case "nvme":
		return "nvme-cli"
	case "zfs", "zpool":
		return "zfsutils-linux"
	case "ceph", "rbd", "mount.ceph":
		return "ceph-common"
	case "dmsetup", "mdadm", "parted", "rsync":
		return tool
	}
	return ""
}
