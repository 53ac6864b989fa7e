package nfs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// What Options.Hook is called for: its first argument after its own. The others are
// key=value each; what it prints is JSON, or nothing. It is called again with the same
// arguments after any failure, and has to answer the same then. docs/nfs.md is its
// manual.
const (
	hookOpQuota    = "quota"           // path= size=; size 0: none
	hookOpSnapshot = "snapshot"        // name= path= [path=...]; prints hookAnswer
	hookOpDelete   = "delete-snapshot" // name=; one that is not there is deleted
)

// hookAnswer is what the hook prints for a snapshot.
type hookAnswer struct {
	Created time.Time `json:"created"`
	// Paths has, for each path that was asked for, where the snapshot of it is: below
	// the root of the share.
	Paths map[string]string `json:"paths"`
}

// hookTime is what a hook may take.
const hookTime = 5 * time.Minute

// hook runs Options.Hook.
func (b *Backend) hook(ctx context.Context, op string, s Share, args ...string) ([]byte, error) {
	argv := append([]string{}, b.o.Hook[1:]...)
	argv = append(argv, op, "share="+s.Name, "server="+s.Server, "export="+s.Export, "dir="+s.LocalDir)
	argv = append(argv, args...)
	for _, a := range argv {
		if bytes.IndexFunc([]byte(a), unprintable) >= 0 {
			return nil, fmt.Errorf("%w: argument %q of the hook has a control character", backends.ErrInvalid, a)
		}
	}
	out, err := b.o.Command.Run(ctx, command.Cmd{Path: b.o.Hook[0], Args: argv, Timeout: hookTime})
	if err != nil {
		return nil, unavailable("hook %s: %w", op, err)
	}
	return out.Stdout, nil
}

// hookQuota sets the quota of a volume, where the hook does that.
func (b *Backend) hookQuota(ctx context.Context, s Share, subDir string, size int64) error {
	if b.o.Quota != QuotaHook {
		return nil
	}
	_, err := b.hook(ctx, hookOpQuota, s, "path="+subDir, "size="+strconv.FormatInt(size, 10))
	return err
}

func hookName(key string) string { return "csi-" + key }

// hookSnapshot has the hook make one snapshot of several volumes, and completes their
// records.
func (b *Backend) hookSnapshot(ctx context.Context, s Share, name string, snaps []*snapMark) error {
	args := []string{"name=" + hookName(name)}
	for _, m := range snaps {
		if m.State != stateCopying {
			continue
		}
		args = append(args, "path="+m.SubDir)
	}
	if len(args) == 1 {
		return nil // an earlier call completed it
	}
	out, err := b.hook(ctx, hookOpSnapshot, s, args...)
	if err != nil {
		return err
	}
	var a hookAnswer
	if err := json.Unmarshal(out, &a); err != nil {
		return unavailable("hook %s printed no answer: %w", hookOpSnapshot, err)
	}
	if a.Created.IsZero() || a.Created.After(time.Now().Add(time.Hour)) {
		return unavailable("hook %s: created is %v", hookOpSnapshot, a.Created)
	}
	for _, m := range snaps {
		if m.State != stateCopying {
			continue
		}
		m.Path, m.Created = a.Paths[m.SubDir], a.Created.UTC()
		if _, err := onShare[*snapMark](ctx, b, s, "", opSnapSave, snapBeginIn{b.where(), *m}); err != nil {
			return err
		}
	}
	return nil
}

// hookDelete has the hook delete what it made under a name.
func (b *Backend) hookDelete(ctx context.Context, s Share, name string) error {
	_, err := b.hook(ctx, hookOpDelete, s, "name="+hookName(name))
	return err
}
