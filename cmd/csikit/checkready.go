package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/cmd/csikit/internal/walk"
)

// usable says which of the flags cannot work. What is given and does nothing would
// only be left out, and the run would pass without it.
func (f *checkFlags) usable() error {
	if f.restart != "" {
		words := strings.Fields(f.restart)
		if len(words) == 0 {
			return fmt.Errorf("%w: -restart has no command", errUsage)
		}
		if _, err := exec.LookPath(words[0]); err != nil {
			return fmt.Errorf("%w: -restart: %w (it is a program with arguments, and no shell's line)", errUsage, err)
		}
	}
	if f.log != "" {
		file, err := os.Open(f.log)
		if err != nil {
			return fmt.Errorf("%w: -log: %w", errUsage, err)
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	if f.dir != "" {
		if st, err := os.Stat(f.dir); err != nil || !st.IsDir() {
			return fmt.Errorf("%w: -dir %s is no directory", errUsage, f.dir)
		}
	}
	return nil
}

// restarts remembers whether the command of -restart has worked.
type restarts struct {
	worked bool
	err    error
}

// trouble is the command's, when it has never worked: its checks were not run, and
// whoever gave the command thinks that they were.
func (r *restarts) trouble() error {
	if r.worked || r.err == nil {
		return nil
	}
	return fmt.Errorf("-restart does not restart the driver: %w", r.err)
}

// reports are the files of a run; nil is one that nobody wants.
type reports struct {
	files []*os.File
	made  []string // by us
}

// createAll opens the named files. What is in a file stays until there is something
// to write, and where one cannot be opened none is made.
func createAll(names ...string) (*reports, error) {
	r := &reports{files: make([]*os.File, len(names))}
	for i, name := range names {
		if name == "" {
			continue
		}
		if slices.Contains(names[:i], name) {
			return nil, errors.Join(fmt.Errorf("%s is to hold two reports", name), r.discard())
		}
		_, before := os.Lstat(name)
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return nil, errors.Join(err, r.discard())
		}
		r.files[i] = f
		if errors.Is(before, os.ErrNotExist) {
			r.made = append(r.made, name)
		}
	}
	return r, nil
}

// discard is for a run that has no report.
func (r *reports) discard() (err error) {
	for _, f := range r.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	for _, name := range r.made {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// writeFile writes a report, if there is a file to write it to.
func writeFile(f *os.File, write func(io.Writer) error) error {
	if f == nil {
		return nil
	}
	st, err := f.Stat()
	if err == nil && st.Mode().IsRegular() {
		err = f.Truncate(0)
	}
	return errors.Join(err, write(f), f.Close())
}

// refusesParameters says when it is -parameters that CreateVolume refuses: with them
// it is INVALID_ARGUMENT, and without it is not. Else every second check would find
// fault with the driver for a slip of the author's.
func (f *checkFlags) refusesParameters(ctx context.Context, conn *grpc.ClientConn) error {
	if len(f.parameters) == 0 {
		return nil
	}
	limit := time.Minute
	if f.timeout > 0 {
		limit = min(limit, f.timeout/2)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	refused := f.tryParameters(ctx, conn, f.parameters)
	if status.Code(refused) != codes.InvalidArgument || status.Code(f.tryParameters(ctx, conn, nil)) == codes.InvalidArgument {
		return nil
	}
	return fmt.Errorf("%w: with -parameters %s CreateVolume is INVALID_ARGUMENT, and without them it is not: %s",
		errUsage, joinPairs(f.parameters), walk.Printable(status.Convert(refused).Message()))
}

// tryParameters makes a volume, and deletes it.
func (f *checkFlags) tryParameters(ctx context.Context, conn *grpc.ClientConn, parameters map[string]string) error {
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
	if f.block {
		capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	req := &csi.CreateVolumeRequest{
		Name: "csikit-" + rand.Text(), VolumeCapabilities: []*csi.VolumeCapability{capability},
		Parameters: parameters, Secrets: f.secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: f.size},
	}
	c := csi.NewControllerClient(conn)
	var id string
	err := again(ctx, func() error {
		resp, err := c.CreateVolume(ctx, req)
		id = resp.GetVolume().GetVolumeId()
		return err
	})
	if err != nil || id == "" {
		return err
	}
	return again(ctx, func() error {
		_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id, Secrets: f.secrets})
		return err
	})
}

// again calls until the answer is not that the driver is busy, or away.
func again(ctx context.Context, call func() error) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := call()
		if c := status.Code(err); c != codes.Aborted && c != codes.Unavailable || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}
