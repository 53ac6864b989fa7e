package fusetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Opcodes that get another answer than "not implemented".
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFlush       = 25
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opInterrupt   = 36
	opBatchForget = 42
)

const (
	rootNode = 1
	dataNode = 2
	blocks   = 1000 // what statfs says
)

// server is a FUSE file system of one file, Data, whose bytes are those of a file
// elsewhere.
type server struct {
	dev     *os.File
	backing *os.File
}

// serve runs as a program: fd, mode, backing file, secret file.
func serve(args []string) error {
	fd, err := strconv.Atoi(strings.TrimPrefix(args[0], "/dev/fd/"))
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	// As careless programs do.
	fmt.Fprintf(os.Stderr, "mode %s, password %s, key %s\n", args[1], os.Getenv("FUSETEST_PASSWORD"), secret)
	switch args[1] {
	case "fail":
		return errors.New("bucket does not exist")
	case "init":
		_, err := unix.Read(fd, make([]byte, maxRequest))
		return errors.Join(errors.New("bucket does not exist"), err)
	case "silent":
		time.Sleep(time.Hour)
	case "daemon":
		return daemonise(fd, args)
	}
	backing, err := os.OpenFile(args[2], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return (&server{dev: os.NewFile(uintptr(fd), "/dev/fuse"), backing: backing}).loop()
}

const maxRequest = 1<<17 + 4096

func (s *server) loop() error {
	buf := make([]byte, maxRequest)
	for {
		n, err := s.dev.Read(buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, io.EOF):
			return nil // unmounted
		case err != nil:
			return err
		}
		op, unique, node := binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint64(buf[8:]), binary.NativeEndian.Uint64(buf[16:])
		if op == opForget || op == opBatchForget || op == opInterrupt {
			continue
		}
		body, errno := s.answer(op, node, buf[40:n])
		out := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		out = binary.NativeEndian.AppendUint32(out, uint32(-int32(errno)))
		out = append(binary.NativeEndian.AppendUint64(out, unique), body...)
		_, _ = s.dev.Write(out) // one that nobody waits for any more is refused
	}
}

func (s *server) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	e := binary.NativeEndian
	switch op {
	case opInit:
		body := make([]byte, 64)
		e.PutUint32(body, 7)
		e.PutUint32(body[4:], 31)
		e.PutUint32(body[20:], 1<<17) // max_write
		return body, 0
	case opLookup:
		if string(in) != Data+"\x00" {
			return nil, unix.ENOENT
		}
		body := make([]byte, 40)
		e.PutUint64(body, dataNode)
		return append(body, s.attr(dataNode)...), 0
	case opSetattr:
		if e.Uint32(in)&(1<<3) != 0 { // FATTR_SIZE
			if s.backing.Truncate(int64(e.Uint64(in[16:]))) != nil {
				return nil, unix.EIO
			}
		}
		return append(make([]byte, 16), s.attr(node)...), 0
	case opGetattr:
		return append(make([]byte, 16), s.attr(node)...), 0
	case opOpen, opOpendir:
		body := make([]byte, 16)
		e.PutUint32(body[8:], 1) // direct I/O
		return body, 0
	case opRelease, opReleasedir, opFlush, opReaddir:
		return nil, 0
	case opRead:
		body := make([]byte, e.Uint32(in[16:]))
		n, err := s.backing.ReadAt(body, int64(e.Uint64(in[8:])))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, unix.EIO
		}
		return body[:n], 0
	case opWrite:
		data := in[40 : 40+e.Uint32(in[16:])]
		if _, err := s.backing.WriteAt(data, int64(e.Uint64(in[8:]))); err != nil {
			return nil, unix.EIO
		}
		return e.AppendUint32(e.AppendUint32(nil, uint32(len(data))), 0), 0
	case opStatfs:
		body := make([]byte, 80)
		e.PutUint64(body, blocks)
		e.PutUint32(body[40:], 4096)
		e.PutUint32(body[48:], 4096)
		return body, 0
	}
	return nil, unix.ENOSYS
}

func (s *server) attr(node uint64) []byte {
	e := binary.NativeEndian
	a := make([]byte, 88)
	e.PutUint64(a, node)
	e.PutUint32(a[64:], 1) // nlink
	e.PutUint32(a[60:], unix.S_IFDIR|0o777)
	if node == dataNode {
		e.PutUint32(a[60:], unix.S_IFREG|0o666)
		if st, err := s.backing.Stat(); err == nil {
			e.PutUint64(a[8:], uint64(st.Size()))
		}
	}
	return a
}
