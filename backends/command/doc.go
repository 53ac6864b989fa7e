// Package command runs host tools (mkfs, resize2fs, lvm, mount.nfs) for a driver
// that must not hang, leak or lie when a tool does.
//
// [Runner.Run] gives a tool
//
//   - an environment of PATH and LC_ALL=C, plus what the [Cmd] says; the root as
//     its directory; never a shell;
//   - a process group of its own, so that its helpers end with it;
//   - a deadline by lack of progress: a tool that writes output, uses CPU time or
//     does I/O may run for hours, one that does nothing is ended after Cmd.Idle;
//   - an end: SIGTERM to the group, SIGKILL after a grace time, and a bounded wait.
//     What sits in the kernel and cannot be killed is given up, reported as stuck
//     and reaped when it wakes. While too many are stuck, further runs are refused
//     with backends.ErrUnavailable, so that a dead server costs a few processes and
//     not all of them;
//   - secrets by environment, standard input or file, never on its command line.
//     What is logged or put into an error is redacted: sensitive options, and every
//     secret given to the tool that it prints itself.
//
// A tool that ends by itself may leave a daemon behind (mount.nfs starts
// rpc.statd); it is not touched, and does not hold Run up.
//
// # When not to use it
//
// Mounting, unmounting, loop devices and mount-point checks are system calls:
// packages mounter/mnt and mounter/blockdev make them a hundred times cheaper
// than a process. For a pipeline or a tool that one talks to, use os/exec.
//
// Cmd.Path and Cmd.Dir must not lie on storage that can hang: the operating
// system reads them before there is a process that could be killed.
package command
