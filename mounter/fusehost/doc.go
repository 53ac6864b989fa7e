// Package fusehost runs the servers of FUSE file systems outside of the driver's
// container, where they outlive it (mounter.ServerHost).
//
// A [Host] is a small process in a container, a pod or a unit of its own; the command
// "csikit fuse-host" is one. A [Client] in the driver reaches it by a Unix socket:
//
//	// the host
//	lis, err := csidriver.Listen("unix:///run/my-driver/fuse.sock", 0o600)
//	err = fusehost.New(nil).Serve(ctx, lis)
//
//	// the driver
//	opts.Servers = fusehost.NewClient("/run/my-driver/fuse.sock")
//
// The host gets from the engine the open descriptor of a mount that was made
// already, and the server gets it as number 3. So neither needs a privilege to
// mount, a mount namespace that anybody else sees, or /dev/fuse. A server is a child
// of the host, in a process group of its own; it dies when the host does, is ended by
// SIGTERM and, if it does not go, SIGKILL, and what it wrote last is kept in memory.
// What servers were started with, secrets too, is in the host's memory alone, until
// the volume is unstaged.
//
// Only root and the host's own user may connect, whatever the mode of the socket.
package fusehost
