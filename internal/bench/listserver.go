package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/loopfile"
	"github.com/csikit/csikit/backends/mem"
)

// envList has the listSpec of a process that serves lists.
const envList = "CSIKIT_BENCH_LIST"

// listSpec says what a process serves: the volumes of a backend by csikit, or the
// pages of that by grpc-go alone.
type listSpec struct {
	Backend   string // mem, loopfile
	Volumes   int
	Dir, Pool string
	Bare      bool
	Entries   int32 // of a ready-made page; 0: as many as fit
}

// socket is short: the path of one may have 107 bytes, and Dir is somewhere deep.
func (s *listSpec) socket() string {
	name := fmt.Sprintf("%s-%d-%t-%d", s.Backend, s.Volumes, s.Bare, s.Entries)
	return filepath.Join(s.Dir, fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(name))))
}

// startList starts this program again as a server.
func startList(ctx context.Context, spec listSpec) (*served, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), envList+"="+string(text))
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, childAttributes()
	stdin, err := cmd.StdinPipe() // the server ends with it
	if err != nil {
		return nil, err
	}
	conn, err := dial(spec.socket())
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &served{conn, func() error { return errors.Join(conn.Close(), stdin.Close(), cmd.Wait()) }}
	if err := awaitReady(ctx, conn); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// serveList is the life of such a process, and its exit code.
func serveList(text string) int {
	var spec listSpec
	err := json.Unmarshal([]byte(text), &spec)
	if err == nil {
		err = spec.serve(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: lists:", err)
		return 1
	}
	return 0
}

func (s *listSpec) serve(ctx context.Context) (err error) {
	var server *served
	if s.Bare {
		pages, e := s.pages(ctx)
		if e != nil {
			return e
		}
		runtime.GC()
		server, err = serveBare(ctx, "", s.socket(), &idle{pages: pages})
	} else {
		server, err = s.serveCSI(ctx, s.socket())
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, server.stop())
}

// pages are those of a csikit server with the same volumes; where they came from
// does not matter to a server that has them.
func (s *listSpec) pages(ctx context.Context) (pages idlePages, err error) {
	same := *s
	same.Backend = "mem"
	server, err := same.serveCSI(ctx, s.socket()+"s")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if err := awaitReady(ctx, server.ClientConn); err != nil {
		return nil, err
	}
	return everyPage(ctx, server, s.Volumes, s.Entries)
}

func (s *listSpec) serveCSI(ctx context.Context, socket string) (*served, error) {
	var b driverBackend
	var err error
	if s.Backend == "loopfile" {
		b, err = loopfile.New(loopfile.Options{Pool: s.Pool, Node: "bench", Thin: true, Overcommit: 1000, Init: true, AllowRootFS: true})
	} else {
		b, err = mem.New(nil)
	}
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, b, s.Volumes); err != nil {
		return nil, err
	}
	return serveBackend(ctx, "", socket, b)
}

// fill makes n volumes, several at a time: what waits for the disk waits together.
func fill(ctx context.Context, b backends.Controller, n int) error {
	errs := make([]error, 64)
	var wg sync.WaitGroup
	var next atomic.Int64
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil {
				v := next.Add(1)
				if v > int64(n) {
					return
				}
				_, errs[i] = b.CreateVolume(ctx, backends.CreateVolumeRequest{Name: fmt.Sprintf("pvc-%d", v), Size: 1 << 20})
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
