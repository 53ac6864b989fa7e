package sanity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/internal/csiclient"
)

// made is something that csi-sanity had the driver make.
type made struct {
	Kind    string // volume, snapshot, group
	ID      string
	Members []string `json:",omitempty"` // of a group
}

func (m made) is(kind, id string) bool { return m.Kind == kind && m.ID == id }

// ledger knows what there is, in the order in which it was made: csi-sanity
// deletes nothing any more when a deletion of its own has failed.
type ledger struct {
	mu   sync.Mutex
	made []made
}

func (l *ledger) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil {
		l.note(req, reply)
	}
	return err
}

func (l *ledger) note(req, reply any) {
	switch r := reply.(type) {
	case *csi.CreateVolumeResponse:
		l.add(made{Kind: "volume", ID: r.GetVolume().GetVolumeId()})
	case *csi.CreateSnapshotResponse:
		l.add(made{Kind: "snapshot", ID: r.GetSnapshot().GetSnapshotId()})
	case *csi.CreateVolumeGroupSnapshotResponse:
		g := made{Kind: "group", ID: r.GetGroupSnapshot().GetGroupSnapshotId()}
		for _, s := range r.GetGroupSnapshot().GetSnapshots() {
			g.Members = append(g.Members, s.GetSnapshotId())
		}
		l.add(g)
	}
	switch r := req.(type) {
	case *csi.DeleteVolumeRequest:
		l.remove("volume", r.GetVolumeId())
	case *csi.DeleteSnapshotRequest:
		l.remove("snapshot", r.GetSnapshotId())
	case *csi.DeleteVolumeGroupSnapshotRequest:
		l.remove("group", r.GetGroupSnapshotId())
	}
}

func (l *ledger) add(m made) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.ID != "" && !slices.ContainsFunc(l.made, func(x made) bool { return x.is(m.Kind, m.ID) }) {
		l.made = append(l.made, m)
	}
}

func (l *ledger) remove(kind, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made = slices.DeleteFunc(l.made, func(x made) bool { return x.is(kind, id) })
}

// takeBack deletes what the child's ledger has, the latest first, and names what
// stays.
func takeBack(ctx context.Context, file string, cfg *Config) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the child did not get so far; why is said elsewhere
	}
	var left []made
	if err == nil {
		err = json.Unmarshal(b, &left)
	}
	if err != nil || len(left) == 0 {
		return err
	}
	at := cfg.ControllerEndpoint
	if at == "" {
		at = cfg.Endpoint
	}
	conn, err := csiclient.Dial(at)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // all calls have been answered
	var errs []error
	away := false
	for _, m := range slices.Backward(left) {
		err := errAway
		if !away {
			err = m.delete(context.WithoutCancel(ctx), conn, cfg)
			code := status.Code(err)
			away = code == codes.Unavailable || code == codes.DeadlineExceeded
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sanity: left behind: %s %s: %w", m.Kind, m.ID, err))
		}
	}
	return errors.Join(errs...)
}

var errAway = errors.New("the driver does not answer")

func (m made) delete(ctx context.Context, conn *grpc.ClientConn, cfg *Config) (err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	switch m.Kind {
	case "volume":
		_, err = csi.NewControllerClient(conn).DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: m.ID, Secrets: cfg.Secrets})
	case "snapshot":
		_, err = csi.NewControllerClient(conn).DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: m.ID, Secrets: cfg.Secrets})
	default:
		_, err = csi.NewGroupControllerClient(conn).DeleteVolumeGroupSnapshot(ctx,
			&csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: m.ID, SnapshotIds: m.Members, Secrets: cfg.Secrets})
	}
	return err
}
