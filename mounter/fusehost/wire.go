package fusehost

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// A message is its length in four bytes and that much JSON. With the length of a
// request to start comes the descriptor. Secrets are in the clear in it: both ends
// have looked whom they talk to.

const maxMessage = 8 << 20

// An op is what a request asks for.
type op string

const (
	opStart op = "start"
	opFind  op = "find"
	opStop  op = "stop"
	opWatch op = "watch"
)

type request struct {
	Op  op       `json:"op"`
	ID  string   `json:"id,omitempty"`
	Run *wireRun `json:"run,omitempty"`
}

type reply struct {
	Status *mounter.ServerStatus `json:"status,omitempty"`
	Kind   string                `json:"kind,omitempty"` // of the error
	Error  string                `json:"error,omitempty"`
}

// wireRun is a backends.FUSE as far as its server is concerned, with its secrets.
type wireRun struct {
	Path  string            `json:"path"`
	Args  []string          `json:"args,omitempty"`
	Vars  map[string]string `json:"vars,omitempty"`
	Env   map[string]string `json:"env,omitempty"`
	Files map[string]string `json:"files,omitempty"`
	UID   uint32            `json:"uid,omitempty"`
	GID   uint32            `json:"gid,omitempty"`
}

func toWire(f *backends.FUSE) *wireRun {
	if f == nil {
		return nil
	}
	w := &wireRun{Path: f.Path, Args: f.Args, Vars: f.Vars, Env: map[string]string{}, Files: map[string]string{}, UID: f.UID, GID: f.GID}
	for _, k := range f.Env.Keys() {
		w.Env[k], _ = f.Env.Lookup(k)
	}
	for k, v := range f.Files {
		w.Files[k] = v.Reveal()
	}
	return w
}

func (w *wireRun) run() *backends.FUSE {
	if w == nil {
		return nil
	}
	f := &backends.FUSE{Path: w.Path, Args: w.Args, Vars: w.Vars, Env: backends.NewSecrets(w.Env), Files: map[string]backends.Secret{}, UID: w.UID, GID: w.GID}
	for k, v := range w.Files {
		f.Files[k] = backends.NewSecret(v)
	}
	return f
}

// kinds are the errors that keep their kind on the way.
var kinds = map[string]error{
	"invalid": backends.ErrInvalid, "precondition": backends.ErrPrecondition, "unavailable": backends.ErrUnavailable,
	"unsupported": backends.ErrUnsupported,
}

const kindNotKnown = "not known"

func errorReply(err error) reply {
	r := reply{Error: err.Error()}
	if errors.Is(err, backends.ErrNotFound) {
		r.Kind = kindNotKnown
	}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			r.Kind = name
		}
	}
	return r
}

func (r reply) err(id string) error {
	switch kind := kinds[r.Kind]; {
	case r.Error == "":
		return nil
	case r.Kind == kindNotKnown:
		return notKnown(id)
	case kind != nil:
		return fmt.Errorf("%w: %s", kind, strings.TrimPrefix(r.Error, kind.Error()+": "))
	}
	return fmt.Errorf("%w: %s", backends.ErrUnavailable, r.Error)
}

// encode gives the two parts of a message.
func encode(v any) (head, body []byte, err error) {
	body, err = json.Marshal(v)
	if err == nil && len(body) > maxMessage {
		err = fmt.Errorf("%w: a message of %d bytes", backends.ErrInvalid, len(body))
	}
	return binary.BigEndian.AppendUint32(nil, uint32(len(body))), body, err
}

// decodeBody reads what comes after the length.
func decodeBody(r io.Reader, head []byte, v any) error {
	n := binary.BigEndian.Uint32(head)
	if n > maxMessage {
		return fmt.Errorf("a message of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}

func receive(r io.Reader, v any) error {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	return decodeBody(r, head, v)
}

func send(w io.Writer, v any) error {
	head, body, err := encode(v)
	if err == nil {
		_, err = w.Write(append(head, body...))
	}
	return err
}
