package csidriver

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/idempotency"
	"github.com/csikit/csikit/internal/faultpoint"
)

// The keys of operations. What an operation holds:
//
//	CreateVolume                      name, and the ID that a VolumeIDer says; shared: its source
//	DeleteVolume                      ID; where this process is the node too, the volume on it
//	ControllerPublish, -Unpublish     ID and node, and the ID: alone when the mode
//	                                  is of a single node or no node is named, else
//	                                  shared
//	ControllerExpand, ModifyVolume    ID
//	CreateSnapshot                    name, and the ID that a SnapshotIDer says; shared: its volume
//	DeleteSnapshot                    ID, also against its readers
//	CreateVolumeGroupSnapshot         name, and the ID that a GroupSnapshotIDer says; shared: its volumes
//	DeleteVolumeGroupSnapshot         ID, and those of its members, also against their readers
//	GetMetadataAllocated, -Delta      shared: the IDs, for readers
//	NodeStage, NodeUnstage, NodeExpand   the volume on this node
//	NodePublish, NodeUnpublish        target path; shared: the volume on this node,
//	                                  alone when an ephemeral one is published
//
// Publishing shares the volume, so that a thousand pods of one volume start side
// by side; the engine keeps what they share in order. A delete in a process that
// is controller and node at once holds the volume on the node, so that nothing
// stages a volume between the question whether it is in use and its deletion.
// Where the controller runs alone only the backend can know that.
func nameKey(name string) idempotency.Key { return idempotency.Exclusive("name:" + name) }
func idKey(id string) idempotency.Key     { return idempotency.Exclusive("id:" + id) }
func nodeKey(id string) idempotency.Key   { return idempotency.Exclusive("node:" + id) }
func pathKey(path string) idempotency.Key { return idempotency.Exclusive("path:" + path) }

// attachKey is of a volume at a node; no ID holds a NUL.
func attachKey(id, node string) idempotency.Key {
	return idempotency.Exclusive("attach:" + id + "\x00" + node)
}

func sharedIDKey(id string) idempotency.Key   { return idempotency.Shared("id:" + id) }
func sharedNodeKey(id string) idempotency.Key { return idempotency.Shared("node:" + id) }

// Snapshots and groups have names and IDs of their own, beside those of volumes.
func snapshotNameKey(name string) idempotency.Key {
	return idempotency.Exclusive("snapshot-name:" + name)
}
func snapshotKey(id string) idempotency.Key       { return idempotency.Exclusive("snapshot:" + id) }
func sharedSnapshotKey(id string) idempotency.Key { return idempotency.Shared("snapshot:" + id) }

// readKey is beside snapshotKey, so that who reads a snapshot is in the way of its
// deletion alone, and not of a CreateSnapshot that is repeated.
func readKey(id string) idempotency.Key       { return idempotency.Exclusive("read:" + id) }
func sharedReadKey(id string) idempotency.Key { return idempotency.Shared("read:" + id) }

func groupNameKey(name string) idempotency.Key { return idempotency.Exclusive("group-name:" + name) }
func groupKey(id string) idempotency.Key       { return idempotency.Exclusive("group:" + id) }

// asked is what an operation keeps of its request, to be compared with later
// ones.
type asked struct {
	message proto.Message
	id      string // of what is made or changed, when it is known
	path    string // staging or target path, or the node of an attachment
	all     bool   // what it undoes, it undoes at every path

	lease time.Time // until when a deletion waits for it; zero: it waits for its end
}

// outlasted tells whether a deletion need not wait any more.
func (a *asked) outlasted() bool { return !a.lease.IsZero() && time.Now().After(a.lease) }

// operation describes an RPC on object to the table of operations.
func operation(name, object string, a asked, keys ...idempotency.Key) idempotency.Operation {
	op := idempotency.Operation{Name: name + " " + object, Keys: keys, Request: a, Equal: sameAsked}
	if opposite := opposites[name]; opposite != nil {
		op.Negates = func(earlier idempotency.Operation) bool {
			e, ok := earlier.Request.(asked)
			return ok && (e.outlasted() || opposite(e.message) && e.id == a.id && (a.all || e.path == a.path))
		}
	}
	return op
}

// opposites say which RPCs are cut short by another one for the same volume or
// snapshot, at the same path or node.
var opposites = map[string]func(proto.Message) bool{
	"DeleteVolume":              is[*csi.CreateVolumeRequest],
	"DeleteSnapshot":            is[*csi.CreateSnapshotRequest],
	"DeleteVolumeGroupSnapshot": is[*csi.CreateVolumeGroupSnapshotRequest],
	"ControllerUnpublishVolume": is[*csi.ControllerPublishVolumeRequest],
	"NodeUnstageVolume":         is[*csi.NodeStageVolumeRequest],
	"NodeUnpublishVolume":       is[*csi.NodePublishVolumeRequest],
}

func is[T proto.Message](m proto.Message) bool {
	_, ok := m.(T)
	return ok
}

// do runs fn as an operation: it goes on when the caller has gone, and a retry
// joins it.
func do[T any](ctx context.Context, d *Driver, op idempotency.Operation, fn func(context.Context) (T, error)) (T, error) {
	op.Owner = RequestID(ctx)
	work := func(ctx context.Context) (v T, err error) {
		defer d.recovered(op.Name, op.Request, &err)
		faultpoint.Reach("csidriver.operation.begun")
		v, err = fn(backends.WithActivity(ctx, idempotency.FromContext(ctx)))
		faultpoint.Reach("csidriver.operation.ended")
		return v, d.withoutSecrets(op.Request, err)
	}
	if d.telemetry != nil {
		return idempotency.Do(ctx, d.operations, op, observed(d, op, work))
	}
	return idempotency.Do(ctx, d.operations, op, work)
}

// withoutSecrets takes the secrets of the request that began an operation out of
// its error: callers with other secrets may get it too, and their secrets alone
// are known where an RPC ends.
func (d *Driver) withoutSecrets(request any, err error) error {
	a, ok := request.(asked)
	if err == nil || !ok {
		return err
	}
	text := err.Error()
	if clean := d.server.redact.scrub(a.message, text); clean != text {
		return &cleanError{clean, err}
	}
	return err
}

// cleanError is an error with another text.
type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.err }

// run is do for what answers nothing but an error.
func run(ctx context.Context, d *Driver, op idempotency.Operation, fn func(context.Context) error) error {
	_, err := do(ctx, d, op, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// recovered turns a panic of work that runs on a goroutine of its own into an
// error, which tells nothing of the panic's value: that is for the log.
func (d *Driver) recovered(name string, request any, err *error) {
	p := recover()
	if p == nil {
		return
	}
	text := panicText(p)
	if a, ok := request.(asked); ok {
		text = d.server.redact.scrub(a.message, text)
	}
	d.logger.Error("panic in an operation", slog.String("operation", name),
		slog.String("panic", clip(text, maxText)), slog.String("stack", string(debug.Stack())))
	*err = fmt.Errorf("%w in %s; the driver's log has the stack", errPanic, name)
}

// guarded runs fn and turns a panic into an error.
func (d *Driver) guarded(name string, fn func() error) (err error) {
	defer d.recovered(name, nil, &err)
	return fn()
}

// drainOperations waits for the operations and names those that it had to cut.
func (d *Driver) drainOperations(ctx context.Context) []string {
	if left := d.operations.Running(); len(left) > 0 {
		d.logger.InfoContext(ctx, "waiting for operations to end", slog.Any("operations", describe(left)))
	}
	return describe(d.operations.Shutdown(ctx))
}

// describe names operations for people.
func describe(all []idempotency.Info) []string {
	names := make([]string, 0, len(all))
	for _, o := range all {
		name := o.Name
		if o.Step != "" {
			name += fmt.Sprintf(" (at step %q)", o.Step)
		}
		name += fmt.Sprintf(" for %v", time.Since(o.Started).Round(time.Millisecond))
		if o.Stuck {
			name += ", was cancelled before and does not end"
		}
		names = append(names, name)
	}
	return names
}

// Running lists the operations that run, the oldest call first: for logs, and for
// idempotency/debug, which shows them over HTTP.
func (d *Driver) Running() []idempotency.Info { return d.operations.Running() }

// stuckHealth is what is wrong with who has a key: an operation that was cancelled
// and does not end keeps it, and nothing else can be done with the volume.
func (d *Driver) stuckHealth(key idempotency.Key) (ill []backends.Health) {
	for _, o := range d.operations.Running() {
		if !o.Stuck || !slices.ContainsFunc(o.Keys, func(k idempotency.Key) bool { return k.Name == key.Name }) {
			continue
		}
		name, _, _ := strings.Cut(o.Name, " ") // a message has room for 128 bytes
		text := fmt.Sprintf("%s of %s was cancelled and does not end", name, o.Started.UTC().Format(time.RFC3339))
		if o.Step != "" {
			text += ": " + o.Step
		}
		ill = append(ill, backends.Health{Status: backends.HealthDegraded, Reason: "OperationStuck", Message: text})
	}
	return ill
}

// operationEvent counts, and logs what a person may have to look after.
func (d *Driver) operationEvent(e idempotency.Event) {
	if d.telemetry != nil {
		d.telemetry.observe(&e)
	}
	level, text := slog.LevelWarn, ""
	switch e.Kind {
	case idempotency.EventNegate:
		level, text = slog.LevelInfo, "operation cancelled by its opposite"
	case idempotency.EventStall:
		text = "operation made no progress and is cancelled"
	case idempotency.EventStuck:
		level, text = slog.LevelError, "operation was cancelled and does not end; its volume stays locked"
	case idempotency.EventLost:
		text = "operation has lost its lock to another replica, or nobody knows, and is cancelled"
	case idempotency.EventUnlock:
		text = "operation could not give its lock back, which ends by itself: " + e.Err.Error()
	default:
		return
	}
	d.logger.Log(context.Background(), level, text, slog.String("operation", e.Name),
		slog.String("step", e.Step), slog.Duration("age", e.Age), slog.String("request_id", e.Owner))
}
