package mounter_test

import (
	"context"
	"encoding/binary"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// fuseServer is a FUSE file system of one empty directory, which can fall ill.
type fuseServer struct {
	dev   *os.File
	ill   atomic.Int32 // the errno of every answer; 0: none
	quiet atomic.Bool  // answers nothing
	done  chan struct{}
}

// serveFUSE mounts one at dir.
func serveFUSE(t *testing.T, dir string) *fuseServer {
	t.Helper()
	fd := testenv.FUSE(t, unix.O_NONBLOCK)
	must(t, mnt.Mount("csikit-test", "fuse", dir, mnt.Options{Data: "fd=" + strconv.Itoa(fd) + ",rootmode=40000,user_id=0,group_id=0"}))
	s := &fuseServer{dev: os.NewFile(uintptr(fd), "/dev/fuse"), done: make(chan struct{})}
	go s.serve()
	t.Cleanup(func() {
		s.die()
		if _, err := mnt.Unwind(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// die ends the server; the mount stays, and is dead.
func (s *fuseServer) die() {
	_ = s.dev.Close() // the second time it is closed already
	<-s.done
}

// The operations of FUSE that get another answer than "not implemented".
const (
	fuseForget, fuseGetattr, fuseStatfs, fuseInit = 2, 3, 17, 26
	fuseInterrupt, fuseBatchForget                = 36, 42
)

func (s *fuseServer) serve() {
	defer close(s.done)
	buf := make([]byte, 1<<17)
	for {
		n, err := s.dev.Read(buf)
		if err != nil || n < 40 {
			return // closed, or unmounted
		}
		op, unique := binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint64(buf[8:])
		if op == fuseForget || op == fuseBatchForget || op == fuseInterrupt || s.quiet.Load() {
			continue
		}
		errno, body := fuseAnswer(op)
		if ill := s.ill.Load(); ill != 0 && op != fuseInit {
			errno, body = ill, nil
		}
		out := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		out = binary.NativeEndian.AppendUint32(out, uint32(-errno))
		out = append(binary.NativeEndian.AppendUint64(out, unique), body...)
		_, _ = s.dev.Write(out) // an answer that nobody waits for any more is refused
	}
}

func fuseAnswer(op uint32) (errno int32, body []byte) {
	put := binary.NativeEndian.PutUint32
	switch op {
	case fuseInit:
		body = make([]byte, 64)
		put(body, 7)
		put(body[4:], 31)
		put(body[20:], 4096) // max_write
	case fuseGetattr:
		body = make([]byte, 104)
		put(body[16:], 1) // ino
		put(body[76:], unix.S_IFDIR|0o755)
		put(body[80:], 2) // nlink
	case fuseStatfs:
		body = make([]byte, 80)
		put(body, 1000)
		put(body[40:], 4096) // bsize
		put(body[48:], 4096) // frsize
	default:
		return int32(unix.ENOSYS), nil
	}
	return 0, body
}

// TestRealCorruptedMount: a mount whose server is dead, or gives nothing but errors,
// or nothing at all, keeps nobody from taking it off, and its figures do not hang.
func TestRealCorruptedMount(t *testing.T) {
	for name, fall := range map[string]func(*fuseServer){
		"ENOTCONN": (*fuseServer).die,
		"ESTALE":   func(s *fuseServer) { s.ill.Store(int32(unix.ESTALE)) },
		"EIO":      func(s *fuseServer) { s.ill.Store(int32(unix.EIO)) },
		"EACCES":   func(s *fuseServer) { s.ill.Store(int32(unix.EACCES)) },
		"silent":   func(s *fuseServer) { s.quiet.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			n := &fixed{}
			r := newRealRig(t, n, nil)
			n.src.Dir = r.path("fuse")
			must(t, os.Mkdir(n.src.Dir, 0o755))
			s := serveFUSE(t, n.src.Dir)
			r.stage("v", "")
			r.publish("v", "t")
			if _, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")}); err != nil {
				t.Errorf("of the healthy one: %v", err)
			}
			fall(s)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if st, err := r.Stats(ctx, mounter.StatsRequest{ID: "v", Path: r.path("t")}); err == nil && (name != "silent" || st.Age == 0) {
				t.Errorf("figures of a broken mount: %+v", st)
			}
			if os.Getenv(envAPI) == "old" {
				// The question for figures that hangs has the mount busy: it ends with
				// the server, and is waited for.
				s.die()
				_, err := r.Stats(t.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")})
				t.Log(err)
			}
			must(t, r.Close())
			r.start(n) // a driver that starts anew looks at it, too
			r.unpublish("v", "t")
			r.unstage("v")
			if r.isMount("t") || r.isMount("staging-v") || len(r.Volumes()) > 0 {
				t.Error("something is left")
			}
			if _, err := os.Lstat(r.path("t")); err == nil {
				t.Error("the target is left")
			}
		})
	}
}

// TestRealShutDownDisk: EIO from a disk: an xfs that has shut itself down.
func TestRealShutDownDisk(t *testing.T) {
	_, r := newRealVolume(t, 320*mib)
	r.stage("v", "xfs")
	r.publish("v", "t")
	d, err := os.Open(r.path("t"))
	must(t, err)
	const goingDown = 0x8004587d // XFS_IOC_GOINGDOWN: _IOR('X', 125, u32)
	must(t, unix.IoctlSetPointerInt(int(d.Fd()), goingDown, 2))
	must(t, d.Close())
	if _, err := os.ReadDir(r.path("t")); !mnt.IsCorrupted(err) {
		t.Fatalf("it is not broken: %v", err)
	}
	r.unpublish("v", "t")
	r.unstage("v")
	r.gone("v")
}

// TestRealDirDoesNotAnswer: a directory on a server that is silent does not keep its
// volume's calls for ever.
func TestRealDirDoesNotAnswer(t *testing.T) {
	n := &fixed{}
	r := newRealRig(t, n, newLoopNode(t))
	must(t, os.Mkdir(r.path("fuse"), 0o755))
	s := serveFUSE(t, r.path("fuse"))
	s.quiet.Store(true)
	n.src.Dir = r.path("fuse/volume")
	answer := make(chan error, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	go func() {
		answer <- r.Stage(ctx, r.stageReq("v", ""))
		answer <- r.Unstage(context.Background(), mounter.UnstageRequest{ID: "v", Path: r.path("staging-v")})
	}()
	until(t, "both calls have ended", func() bool { return len(answer) == 2 })
	if err := <-answer; err == nil {
		t.Error("staged")
	}
	must(t, <-answer)
	if v := r.Volumes(); len(v) > 0 {
		t.Errorf("records left: %v", v)
	}
}
