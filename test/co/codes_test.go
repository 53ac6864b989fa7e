package co

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csikit/csikit/backends/mem"
	"github.com/csikit/csikit/internal/testenv"
)

var update = flag.Bool("update", false, "write docs/codes.md")

func service(full string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(full, "/csi.v1."), "/")
	return name
}

// cell is what an RPC answered; "" when the failure cannot happen to it.
type cell string

const none cell = "–"

// TestCodes makes every failure happen to every RPC. It holds docs/codes.md to what
// comes out, and what comes out to what orchestrators take a code for.
func TestCodes(t *testing.T) {
	rows, columns := rpcs(), failures()
	table := make([][]cell, len(rows))
	var all []func()
	for i, r := range rows {
		table[i] = make([]cell, len(columns))
		for j, fail := range columns {
			table[i][j] = none
			if fail.can(r) {
				all = append(all, func() { table[i][j] = observe(t, r, fail) })
			}
		}
	}
	atOnce(all)
	coverAll(t, rows)
	page := codesPage(rows, columns, table)
	const file = "../../docs/codes.md"
	if *update {
		if err := os.WriteFile(file, page, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, page) {
		t.Errorf("docs/codes.md is not what the driver answers (%v); go test ./test/co -run TestCodes -update writes it", err)
	}
}

// atOnce runs a few of all beside each other: what takes their time is fsync.
func atOnce(all []func()) {
	queue := make(chan func())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for f := range queue {
				f()
			}
		})
	}
	for _, f := range all {
		queue <- f
	}
	close(queue)
	wg.Wait()
}

func (fail *failure) can(r *rpc) bool {
	if fail.fits != nil {
		return fail.fits(r) && (r.at != "" || fail.early || r.empty != nil)
	}
	return r.at != ""
}

// observe makes one failure happen to one RPC, in a driver of its own.
func observe(t *testing.T, r *rpc, fail *failure) (c cell) {
	t.Helper()
	name := fmt.Sprintf("%s at %s, %s", r.name, cmp.Or(r.at, "no place"), fail.name)
	t.Run(name, func(t *testing.T) { testenv.Bubble(t, func(t *testing.T) { c = observeIn(t, name, r, fail) }) })
	return c
}

func observeIn(t *testing.T, name string, r *rpc, fail *failure) cell {
	log := &lockedBuffer{}
	o := mem.Options{}
	start := func(s *setup) {
		s.opts.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s.opts.LogRequests = true
		if fail.start != nil {
			fail.start(&o, s, r)
		}
	}
	if fail.start != nil { // what it says of the options is needed before
		fail.start(&o, &setup{backend: scratch(t)}, r)
	}
	f := newFixture(t, o, start)
	if !fail.early {
		f.ready()
		if r.prepare != nil {
			r.prepare(f)
		}
	}
	code := status.Code(fail.call(f, r))
	c := cell(codeName(code))
	if (fail.doubt || fail.silent && r.looks) && final(r.full, code) && (r.undone == nil || !r.undone(f)) {
		t.Errorf("%s: %s, after which a CO forgets", name, c)
	}
	f.close()
	if strings.Contains(log.String(), canary) {
		t.Errorf("%s: the log shows a secret:\n%s", name, log)
	}
	return c
}

func scratch(t *testing.T) *mem.Backend {
	b, err := mem.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// final says whether the COs that call this RPC take a code for the end of it.
//
// What makes something: all codes but these four, and outside CreateVolume
// RESOURCE_EXHAUSTED. external-provisioner pkg/controller/controller.go checkError,
// external-attacher pkg/attacher/attacher.go isFinalError, external-resizer
// pkg/util/util.go IsFinalError, external-snapshotter
// pkg/sidecar-controller/snapshot_controller.go isCSIFinalError (August 2026);
// kubernetes v1.36.3 pkg/volume/csi/csi_client.go isFinalError.
//
// What takes something away is asked again after every code but OK, by all of them;
// Nomad alone takes NOT_FOUND for OK (plugins/csi/client.go NodeUnpublishVolume,
// NodeUnstageVolume, ControllerUnpublishVolume).
//
// What only reads leaves nothing behind.
func final(full string, code codes.Code) bool {
	switch full[strings.LastIndexByte(full, '/')+1:] {
	case "CreateVolume":
		return !slices.Contains([]codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted}, code)
	case "ControllerPublishVolume", "ControllerExpandVolume", "ControllerModifyVolume", "CreateSnapshot", "CreateVolumeGroupSnapshot",
		"NodeStageVolume", "NodePublishVolume", "NodeExpandVolume":
		return !slices.Contains([]codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted, codes.ResourceExhausted}, code)
	case "DeleteVolume", "ControllerUnpublishVolume", "DeleteSnapshot", "DeleteVolumeGroupSnapshot", "NodeUnstageVolume", "NodeUnpublishVolume":
		return code == codes.OK || code == codes.NotFound
	}
	return false
}

// codeName is a code as the spec writes it: FAILED_PRECONDITION.
func codeName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(strings.ReplaceAll(b.String(), "Canceled", "CANCELLED"))
}

// codeOf is the code of a name.
func codeOf(name cell) codes.Code {
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		if codeName(c) == string(name) {
			return c
		}
	}
	return codes.Unknown
}

// coverAll: every RPC of the spec has a row.
func coverAll(t *testing.T, rows []*rpc) {
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			full := "/" + string(services.Get(i).FullName()) + "/" + string(methods.Get(j).Name())
			if !slices.ContainsFunc(rows, func(r *rpc) bool { return r.full == full }) {
				t.Errorf("%s has no row", full)
			}
		}
	}
}

// lockedBuffer is a log that may be written to from anywhere.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
