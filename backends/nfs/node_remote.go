package nfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter/mnt"
)

// MountRemote mounts a volume for all to see. Once the kernel has been asked, its answer
// is waited for also when ctx has ended, or the end of the worker whose server is dead.
func (b *Backend) MountRemote(ctx context.Context, req backends.MountRemoteRequest) error {
	if err := b.serves(NodeHalf); err != nil {
		return err
	}
	err := b.mountRemote(ctx, req)
	if err == nil {
		return nil
	}
	// What was killed may have mounted before.
	is, look := mnt.IsMountPoint(req.Target)
	if is {
		look = b.UnmountRemote(context.WithoutCancel(ctx), backends.UnmountRemoteRequest{Path: req.Target, Detach: true})
	}
	return errors.Join(err, look)
}

func (b *Backend) mountRemote(ctx context.Context, req backends.MountRemoteRequest) error {
	o, err := parseOptions(apart(req), req.Mount.Options, req.Flags.Reveal())
	if err != nil {
		return err
	}
	host := hostOf(req.Mount.Source)
	addrs, err := addresses(ctx, host, o)
	if err != nil {
		return err
	}
	l := lane{server: serverKey(host, o), name: laneNode, within: true}
	list := tries(ctx, addrs, o)
	if len(list) == 0 {
		return b.mountHelper(ctx, req, o)
	}
	for _, t := range list {
		_, err = call[struct{}](ctx, b.workers, l, opMount, mountTask{
			Source: req.Mount.Source, Target: req.Target, Words: t.words, ReadOnly: req.ReadOnly,
		})
		if !another(err) {
			break
		}
	}
	if errors.Is(err, syscall.EPROTONOSUPPORT) && o.version() == "" {
		return b.mountHelper(ctx, req, o)
	}
	return mountError(req.Mount.Source, err)
}

// apart gives a volume that nobody else has a superblock of its own, unless its options
// say otherwise. Volumes of one export would be one device, with "/" as the root of each
// mount in mountinfo: kubelet then takes one volume for a reference to another ("still
// mounted by other references") and does not call NodeUnstageVolume while two are staged.
// Two volumes that are one directory, which somebody wrote by hand, are left together:
// each would have a cache, and one not see what the other has written.
func apart(req backends.MountRemoteRequest) []string {
	h, err := parseHandle(req.ID)
	own := err == nil && h.tag == volumeTag // one directory is one volume: see claim
	if own || provisioned.MatchString(path.Base(req.Mount.Source)) {
		return []string{"nosharecache"}
	}
	return nil
}

// provisioned is a directory that csi-driver-nfs made for one volume.
var provisioned = regexp.MustCompile(`^pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// hostOf is the server of a mount's source.
func hostOf(source string) string {
	host, _, _ := strings.Cut(source, ":/")
	return host
}

// mountHelper mounts NFS 3 by mount.nfs, which is ended as every command that makes
// no progress is.
func (b *Backend) mountHelper(ctx context.Context, req backends.MountRemoteRequest, o *mountOptions) error {
	server := serverKey(hostOf(req.Mount.Source), o)
	t, err := b.workers.breakers.enter(ctx, server)
	if err != nil {
		return err
	}
	words := o.words
	if req.ReadOnly {
		words = append(slices.Clip(words), "ro")
	}
	args := []string{req.Mount.Source, req.Target}
	if len(words) > 0 {
		args = append(args, "-o", strings.Join(words, ","))
	}
	_, err = b.o.Command.Run(ctx, command.Cmd{Path: "mount.nfs", Args: args, Scope: server, Timeout: 3 * callTime})
	t.leave(nil) // mount.nfs says nothing that could be told from a mistake
	if _, missing := errors.AsType[*command.NotInstalledError](err); missing {
		return fmt.Errorf("%w: NFS 3 needs mount.nfs (nfs-common) in the driver's image: %w", backends.ErrPrecondition, err)
	}
	if err != nil {
		return unavailable("%w", err)
	}
	return nil
}

const (
	firstLook = 2 * time.Millisecond
	lastLook  = 100 * time.Millisecond
	// parting is how long an unmount is waited for whose path is free already: with a
	// server that lives it has ended by then.
	parting = 250 * time.Millisecond
)

// UnmountRemote unmounts in a worker, and looks whether the path is free.
func (b *Backend) UnmountRemote(ctx context.Context, req backends.UnmountRemoteRequest) error {
	over := make(chan error, 1)
	go func() {
		// What hangs in it is ended with the worker, after a time.
		_, err := call[struct{}](context.WithoutCancel(ctx), b.workers, lane{name: laneUnmount, within: true}, opUnmount, pathTask{Path: req.Path, Detach: req.Detach})
		over <- err
	}()
	var free *time.Timer
	var parted <-chan time.Time
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		look := time.NewTimer(wait)
		select {
		case err := <-over:
			look.Stop()
			return b.unmounted(req.Path, err)
		case <-parted:
			look.Stop()
			return nil
		case <-ctx.Done():
			look.Stop()
			return context.Cause(ctx)
		case <-look.C:
		}
		if is, err := mnt.IsMountPoint(req.Path); free == nil && err == nil && !is {
			free = time.NewTimer(parting)
			parted = free.C
			defer free.Stop()
		}
	}
}

// unmounted believes the kernel, whatever became of the worker.
func (b *Backend) unmounted(path string, err error) error {
	if err == nil {
		return nil
	}
	if is, look := mnt.IsMountPoint(path); look == nil && !is {
		return nil
	}
	return err
}

// GroupRemote gives a volume's root to a group.
func (b *Backend) GroupRemote(ctx context.Context, req backends.GroupRemoteRequest) error {
	s, err := decodeState(req.State)
	if err != nil {
		return err
	}
	_, err = call[struct{}](ctx, b.workers, s.lane(), opGroup, pathTask{Path: req.Path, GID: req.GID})
	if err != nil {
		return unavailable("give %s to group %d: %w", req.Path, req.GID, err)
	}
	return nil
}

// CheckRemote looks at a volume's root.
func (b *Backend) CheckRemote(ctx context.Context, req backends.CheckRemoteRequest) error {
	s, err := decodeState(req.State)
	if err != nil {
		return err
	}
	_, err = call[struct{}](ctx, b.workers, s.lane(), opLook, pathTask{Path: req.Path})
	if isStale(err) {
		return fmt.Errorf("%w: %w", backends.ErrDataLoss, err)
	}
	return err
}
