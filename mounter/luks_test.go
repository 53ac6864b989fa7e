package mounter_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/blockdev"
)

const luksKey = "a key\x00of bytes\n"

// encrypt asks for encryption of the volume with these keys: Key, PreviousKey.
func (r *rig) encrypt(keys ...string) {
	e := &backends.Encryption{Key: backends.NewSecret(keys[0])}
	if len(keys) > 1 {
		e.PreviousKey = backends.NewSecret(keys[1])
	}
	r.node.sources["v"].Device.Encryption = e
}

func newLUKSRig(t *testing.T, wrap func(*node) backends.Node) *rig {
	r := newRig(t, wrap)
	r.encrypt(luksKey)
	return r
}

// count is how often the kernel was told to do that.
func (r *rig) count(action string) int {
	n := 0
	for _, l := range r.Kernel.Log() {
		if strings.HasPrefix(l, action) {
			n++
		}
	}
	return n
}

// closed fails when a mapping is left, or anything else.
func (r *rig) closed() {
	r.t.Helper()
	r.clean()
	if all, err := r.Kernel.LUKSMappings(""); err != nil || len(all) > 0 {
		r.t.Errorf("mappings left: %+v, %v", all, err)
	}
}

func (r *rig) blockRequests() (mounter.StageRequest, mounter.PublishRequest) {
	s, p := r.stageRequest(), r.publishRequest()
	s.Capability = backends.Capability{Mode: backends.SingleNodeWriter, Block: true}
	p.Capability = s.Capability
	return s, p
}

// TestLUKSLife: a blank device is encrypted, mounted, and found again.
func TestLUKSLife(t *testing.T) {
	for name, wrap := range map[string]func(*node) backends.Node{"plain": nil, "recorder": asRecorder} {
		t.Run(name, func(t *testing.T) {
			r := newLUKSRig(t, wrap)
			r.stage()
			r.publish()
			in := r.disk.Inside()
			if in == nil || r.disk.Mark() != mounter.LUKSUsed || in.Content().Type != "ext4" {
				t.Fatalf("mark %q, inside %+v", r.disk.Mark(), in)
			}
			if m := r.Kernel.Mounts(); len(m) != 2 || !strings.HasPrefix(m[0].Source, "/dev/mapper/csikit-") {
				t.Errorf("mounts %+v", m)
			}
			r.stage() // again
			must(t, r.Restart())
			r.publish()
			r.unpublish()
			r.unstage()
			r.closed()
			r.stage()
			r.unstage()
			r.closed()
			if n, m := r.count("luksFormat"), r.mkfs(); n != 1 || m != 1 {
				t.Errorf("%d luksFormat, %d mkfs", n, m)
			}
		})
	}
}

// TestLUKSFindsAgain: what is open is taken over when all records are lost, and
// closed when nobody knows of it any more.
func TestLUKSFindsAgain(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.stage()
	r.loseRecords()
	r.stage()
	r.unstage()
	r.closed()
	r.stage()
	r.loseRecords()
	r.unstage()
	r.closed()
	if n := r.count("luksFormat"); n != 1 {
		t.Errorf("%d luksFormat", n)
	}
}

func (r *rig) loseRecords() {
	r.t.Helper()
	must(r.t, r.Close())
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*.json"))
	must(r.t, err)
	for _, f := range files {
		must(r.t, os.Remove(f))
	}
	must(r.t, r.Restart())
}

// TestLUKSRefused: what is on the device and what was asked for must fit, and
// nothing is changed when they do not.
func TestLUKSRefused(t *testing.T) {
	ext4 := blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib, Clean: true}
	data := blockdev.Content{State: blockdev.Unknown, Offset: 7}
	done := func(r *rig) { r.node.sources["v"].Device.Format = backends.FormatDone }
	for name, c := range map[string]struct {
		wrap func(*node) backends.Node
		have func(*rig)
		want error
		says string
	}{
		"plain file system":    {have: func(r *rig) { r.disk.SetContent(ext4) }, want: backends.ErrPrecondition, says: "to be encrypted"},
		"plain data":           {have: func(r *rig) { r.disk.SetContent(data) }, want: backends.ErrPrecondition, says: "somebody's data"},
		"partition table":      {have: func(r *rig) { r.disk.SetContent(blockdev.Content{State: blockdev.Foreign, Type: "gpt"}) }, want: backends.ErrPrecondition, says: "belongs to something else"},
		"not asked for":        {have: func(r *rig) { r.disk.Encrypt(luksKey, ext4); r.node.sources["v"].Device.Encryption = nil }, want: backends.ErrPrecondition, says: "it is encrypted, and"},
		"wrong key":            {have: func(r *rig) { r.disk.Encrypt("another", ext4) }, want: backends.ErrUnauthenticated, says: "does not open"},
		"two wrong keys":       {have: func(r *rig) { r.disk.Encrypt("another", ext4); r.encrypt("x", "y") }, want: backends.ErrUnauthenticated, says: "neither"},
		"done, and blank":      {wrap: asRecorder, have: done, want: backends.ErrPrecondition, says: "never formatted again"},
		"never, and encrypted": {wrap: asRecorder, have: func(r *rig) { r.disk.Encrypt(luksKey, ext4); r.node.sources["v"].Device.Format = backends.FormatNever }, want: backends.ErrPrecondition, says: "somebody else"},
		"ruins of a header": {have: func(r *rig) {
			r.disk.SetContent(blockdev.Content{State: blockdev.Foreign, Type: "crypto_LUKS", Errors: true})
		}, want: backends.ErrPrecondition, says: "damaged"},
		"noise in somebody else's": {have: func(r *rig) { r.disk.Encrypt(luksKey, data) }, want: backends.ErrPrecondition, says: "somebody's data"},
		"the same, started": {wrap: asRecorder, have: func(r *rig) {
			r.disk.Encrypt(luksKey, data)
			r.node.sources["v"].Device.Format, r.node.sources["v"].Device.FSType = backends.FormatStarted, "ext4"
		}, want: backends.ErrPrecondition, says: "somebody's data"},
		"other type inside": {have: func(r *rig) { r.disk.Encrypt(luksKey, blockdev.Content{State: blockdev.Filesystem, Type: "xfs"}) }, want: backends.ErrPrecondition, says: "ext4 was asked for"},
		"no key":            {have: func(r *rig) { r.encrypt("") }, want: backends.ErrInvalid, says: "without a key"},
		"cipher":            {have: func(r *rig) { r.node.sources["v"].Device.Encryption.Cipher = "rot13" }, want: backends.ErrInvalid, says: "rot13"},
		"too small":         {have: func(r *rig) { r.disk.Resize(16 << 20) }, want: backends.ErrPrecondition, says: "encryption takes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLUKSRig(t, c.wrap)
			c.have(r)
			before, keys := r.disk.Content(), r.disk.Keys()
			err := r.Stage(t.Context(), r.stageRequest())
			wantKind(t, err, c.want)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error does not say %q: %v", c.says, err)
			}
			if got := r.disk.Content(); got != before || !slices.Equal(r.disk.Keys(), keys) {
				t.Errorf("the device was changed: %+v", got)
			}
			if n := r.count("luksFormat") + r.mkfs() + r.count("mark"); n > 0 {
				t.Errorf("%v", r.Kernel.Log())
			}
			r.closed()
		})
	}
}

// TestLUKSSomebodyElses: a device that somebody else encrypted is mounted, and its
// header stays as it is.
func TestLUKSSomebodyElses(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.disk.Encrypt(luksKey, blockdev.Content{State: blockdev.Filesystem, Type: "ext4", Size: gib - 16<<20, Clean: true})
	r.stage()
	r.unstage()
	r.closed()
	if r.disk.Mark() != "" || r.mkfs() != 0 {
		t.Errorf("mark %q, %v", r.disk.Mark(), r.Kernel.Log())
	}
}

// TestLUKSMappingOfAnother: a mapping of the right name on another device, or of
// another one's, is left alone.
func TestLUKSMappingOfAnother(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.stage()
	name := strings.TrimPrefix(r.disk.Inside().Path(), "/dev/mapper/")
	r.unstage()
	other := r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
	other.CopyOf(r.disk)
	d, err := r.Kernel.OpenDevice(t.Context(), "/dev/b")
	must(t, err)
	_, err = r.Kernel.LUKSOpen(t.Context(), mounter.LUKSOpenRequest{Device: d, Name: name, Key: backends.NewSecret(luksKey)})
	must(t, err)
	wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
	if other.Inside() == nil {
		t.Error("the other's mapping was closed")
	}
}

// TestLUKSClones: a volume and its copy have one LUKS UUID, and stand on one node.
func TestLUKSClones(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.stage()
	clone := r.Kernel.AddDisk("/dev/b", gib, backends.Identity{Serial: "B"})
	clone.CopyOf(r.disk)
	r.node.sources["w"] = &backends.Source{Device: &backends.Device{
		Path: "/dev/b", Identity: backends.Identity{Serial: "B"}, Encryption: r.node.sources["v"].Device.Encryption,
	}}
	req := r.stageRequest()
	req.ID, req.Path = "w", req.Path+"-w"
	must(t, r.Stage(t.Context(), req))
	if a, b := r.disk.Inside(), clone.Inside(); a == nil || b == nil || a == b {
		t.Errorf("%v, %v", a, b)
	}
	must(t, r.Unstage(t.Context(), mounter.UnstageRequest{ID: "w", Path: req.Path}))
	r.unstage()
	r.closed()
	if n := r.count("luksFormat") + r.mkfs(); n != 2 {
		t.Errorf("%v", r.Kernel.Log())
	}
}

// TestLUKSGrows: with the device, while it is staged and before.
func TestLUKSGrows(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.stage()
	r.disk.Resize(2 * gib)
	size, err := r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.staging, Range: backends.CapacityRange{Required: 2 * gib}})
	if in := r.disk.Inside(); err != nil || size != 2*gib || in.Content().Size != 2*gib-16<<20 {
		t.Errorf("%d, %v, inside %+v", size, err, in.Content())
	}
	r.unstage()
	r.disk.Resize(3 * gib)
	r.stage()
	if got := r.disk.Inside().Content().Size; got != 3*gib-16<<20 {
		t.Errorf("spans %d", got)
	}
	// A stage that finds the mapping open.
	r.loseRecords()
	r.disk.Resize(4 * gib)
	r.stage()
	if got := r.disk.Inside().Content().Size; got != 4*gib-16<<20 {
		t.Errorf("spans %d", got)
	}
	st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.staging})
	if err != nil || st.Total != 4*gib-16<<20 {
		t.Errorf("%+v, %v", st, err)
	}
	r.unstage()
	r.closed()
}

// TestLUKSBlock: a raw block volume gets the node of the mapping.
func TestLUKSBlock(t *testing.T) {
	for name, wrap := range map[string]func(*node) backends.Node{"plain": nil, "recorder": asRecorder} {
		t.Run(name, func(t *testing.T) {
			r := newLUKSRig(t, wrap)
			stage, publish := r.blockRequests()
			must(t, r.Stage(t.Context(), stage))
			must(t, r.Publish(t.Context(), publish))
			must(t, r.Publish(t.Context(), publish))
			if r.disk.Mark() != mounter.LUKSUsed {
				t.Errorf("mark %q", r.disk.Mark())
			}
			if m := r.Kernel.Mounts(); len(m) != 1 || !strings.HasPrefix(m[0].Root, "/csikit-") {
				t.Errorf("mounts %+v", m)
			}
			st, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.target})
			if err != nil || !st.Block || st.Total != gib-16<<20 {
				t.Errorf("%+v, %v", st, err)
			}
			r.disk.Resize(2 * gib)
			_, err = r.Expand(t.Context(), mounter.ExpandRequest{ID: "v", Path: r.target})
			st, _ = r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.target})
			if err != nil || st.Total != 2*gib-16<<20 {
				t.Errorf("%+v, %v", st, err)
			}
			must(t, r.Restart())
			must(t, r.Stage(t.Context(), stage))
			r.unpublish()
			r.unstage()
			r.closed()
			if n := r.mkfs(); n > 0 {
				t.Errorf("%d mkfs", n)
			}
			// What its user left there is noise to csikit, and never formatted.
			err = r.Stage(t.Context(), r.stageRequest())
			if err == nil || r.mkfs() > 0 {
				t.Errorf("formatted: %v", err)
			}
		})
	}
}

// TestLUKSReadOnly: a reader's mapping is read-only, changes no header, and makes
// room for a writer's.
func TestLUKSReadOnly(t *testing.T) {
	r := newLUKSRig(t, nil)
	ro := r.stageRequest()
	ro.Capability.Mode = backends.SingleNodeReader
	wantKind(t, r.Stage(t.Context(), ro), backends.ErrPrecondition)
	r.stage()
	r.unstage()
	r.encrypt("new", luksKey)
	must(t, r.Stage(t.Context(), ro))
	if !r.disk.Inside().IsReadOnly() || !slices.Equal(r.disk.Keys(), []string{luksKey}) {
		t.Errorf("keys %q", r.disk.Keys())
	}
	r.unstage()
	// Left open by a reader that was cut short.
	r.Kernel.Fail("Mount", 1, errors.New("no"))
	if err := r.Stage(t.Context(), ro); err == nil || r.disk.Inside() == nil {
		t.Fatalf("%v", err)
	}
	r.stage()
	if r.disk.Inside().IsReadOnly() || !slices.Equal(r.disk.Keys(), []string{"new"}) {
		t.Errorf("keys %q", r.disk.Keys())
	}
	r.unstage()
	r.closed()
}

// TestLUKSNoKeyAnywhere: not in records, errors, logs or a printed source.
func TestLUKSNoKeyAnywhere(t *testing.T) {
	const canary = "canary-of-a-key"
	r := newRig(t, nil)
	r.encrypt(canary, canary+"-old")
	var said []string
	for _, op := range []string{"LUKSFormat", "LUKSOpen", "LUKSMark", "LUKSHeader", "LUKSMappings"} {
		r.Kernel.Fail(op, 1, errors.New(op+" fails"))
		said = append(said, fmt.Sprint(r.Stage(t.Context(), r.stageRequest())))
	}
	r.stage()
	files, err := filepath.Glob(filepath.Join(r.StateDir(), "v1", "*"))
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		said = append(said, string(b))
	}
	d := r.node.sources["v"].Device
	said = append(said, fmt.Sprintf("%v %+v %#v", d, d.Encryption, *d.Encryption), strings.Join(r.Kernel.Log(), "\n"))
	for _, s := range said {
		if strings.Contains(s, "canary") {
			t.Errorf("the key shows: %s", s)
		}
	}
	r.unstage()
	r.closed()
}

// TestLUKSStaysOpen: CloseVolume is not called while the mapping cannot be closed.
func TestLUKSStaysOpen(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.stage()
	r.Kernel.Fail("LUKSClose", 2, errors.New("device is busy"))
	for range 2 {
		wantKind(t, r.Unstage(t.Context(), r.unstageRequest()), backends.ErrUnavailable)
		if !r.node.isOpen("v") {
			t.Fatal("the device was taken away below its mapping")
		}
	}
	r.unstage()
	r.closed()
}

// TestLUKSUsedIsNeverFormatted: the header remembers that there was something
// inside, whoever else has forgotten it.
func TestLUKSUsedIsNeverFormatted(t *testing.T) {
	for _, now := range []blockdev.State{blockdev.Blank, blockdev.Unknown} {
		r := newLUKSRig(t, nil)
		r.stage()
		r.Kernel.UnmountForeign(r.staging)
		r.disk.Inside().SetContent(blockdev.Content{State: now})
		r.loseRecords()
		wantKind(t, r.Stage(t.Context(), r.stageRequest()), backends.ErrPrecondition)
		if r.mkfs() != 1 {
			t.Error("formatted again")
		}
	}
}

// TestLUKSWrongKeyIsFinal, although the record remembers a file system: so does
// the header, and the device is given back.
func TestLUKSWrongKeyIsFinal(t *testing.T) {
	r := newLUKSRig(t, nil)
	r.stage()
	r.Kernel.Reboot()
	must(t, r.Restart())
	r.encrypt("wrong")
	err := r.Stage(t.Context(), r.stageRequest())
	wantKind(t, err, backends.ErrUnauthenticated)
	if errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("the CO goes on trying: %v", err)
	}
	r.closed()
}
