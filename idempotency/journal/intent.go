package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Intent is an unfinished one, in the hands of one caller, who must call Finish
// or Leave. It is not safe for concurrent use.
type Intent struct {
	j       *Journal
	e       *entry
	earlier bool
	ended   bool
}

// Earlier tells whether the intent was begun before: somebody has begun this and
// left it, or was killed, and what became of it is not known.
func (in *Intent) Earlier() bool { return in.earlier }

// Key is what was given to Begin.
func (in *Intent) Key() string { return in.record().Key }

// Began is when the intent was begun, by the host's clock.
func (in *Intent) Began() time.Time { return in.record().Began }

// Updated is when the record was last written, by the host's clock.
func (in *Intent) Updated() time.Time { return in.record().Updated }

// Decode reads the data, that of the latest Update, into v.
func (in *Intent) Decode(v any) error { return json.Unmarshal(in.record().Data, v) }

func (in *Intent) record() record {
	in.j.mu.Lock()
	defer in.j.mu.Unlock()
	return in.e.record
}

// Update replaces the data: for what the next try must know before the storage is
// asked, as the time of this try or the token of a job.
func (in *Intent) Update(data any) error {
	j := in.j
	j.files.RLock()
	defer j.files.RUnlock()
	if err := in.open(); err != nil {
		return err
	}
	r := in.record()
	raw, err := json.Marshal(data)
	if err == nil {
		r.Data, r.Updated = raw, time.Now().UTC()
		err = j.write(in.e, r)
	}
	if err != nil {
		return fmt.Errorf("journal: intent %q: %w", r.Key, err)
	}
	return nil
}

// Finish says that the outcome is known, whatever it is, and removes the record.
// With an error the intent may still be there, now and after a restart: call it
// again, or Leave and answer that the outcome is unknown.
func (in *Intent) Finish() error {
	j := in.j
	j.files.RLock()
	defer j.files.RUnlock()
	if err := in.open(); err != nil {
		return err
	}
	if err := j.remove(in.e); err != nil {
		return fmt.Errorf("journal: intent %q: %w", in.Key(), err)
	}
	in.ended = true
	j.release(in.e, true)
	return nil
}

// Leave gives an intent back whose outcome is unknown. After Finish it does
// nothing.
func (in *Intent) Leave() {
	if !in.ended {
		in.ended = true
		in.j.release(in.e, false)
	}
}

func (in *Intent) open() error {
	in.j.mu.Lock()
	defer in.j.mu.Unlock()
	if in.ended || in.j.closed {
		return fmt.Errorf("journal: intent %q: %w", in.e.Key, ErrClosed)
	}
	return nil
}

// Replay calls fn for every unfinished intent that nobody has, the oldest first.
// Fn looks what became of it and calls Finish when it knows; what it does not
// finish stays. The errors of fn are joined, and do not keep the next intents
// from being looked at; ctx's end does.
func (j *Journal) Replay(ctx context.Context, fn func(ctx context.Context, in *Intent) error) error {
	var errs []error
	for _, i := range j.Leaks(0) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		e, _, err := j.take(i.Key, false)
		if errors.Is(err, ErrClosed) {
			return errors.Join(append(errs, err)...)
		}
		if e == nil {
			continue // somebody has it, or has finished it
		}
		in := &Intent{j: j, e: e, earlier: true}
		if err := in.replay(ctx, fn); err != nil {
			errs = append(errs, fmt.Errorf("intent %q: %w", i.Key, err))
		}
	}
	return errors.Join(errs...)
}

func (in *Intent) replay(ctx context.Context, fn func(context.Context, *Intent) error) error {
	defer in.Leave()
	return fn(ctx, in)
}

// Info describes an unfinished intent.
type Info struct {
	Key     string          `json:"key"`
	File    string          `json:"file"`
	Began   time.Time       `json:"began"`
	Updated time.Time       `json:"updated"`
	Data    json.RawMessage `json:"data"`
}

func (i Info) String() string {
	return fmt.Sprintf("%s: begun %s, outcome unknown (%s)", i.Key, i.Began.Format(time.RFC3339), i.File)
}

// Leaks lists the intents that nobody has in hand and that were begun before that
// long, the oldest first: what they were to make may be there and be known to
// nobody. One from the future, by a clock that was wrong, counts as old.
//
// When a person has looked, and taken away what was left, the intent is ended by
// removing its file while the driver is stopped.
func (j *Journal) Leaks(older time.Duration) []Info {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Info
	for _, e := range j.entries {
		if age := time.Since(e.Began); !e.active && (age < 0 || age >= older) {
			all = append(all, Info{e.Key, j.path(e.file), e.Began, e.Updated, e.Data})
		}
	}
	slices.SortFunc(all, func(a, b Info) int {
		return cmp.Or(a.Began.Compare(b.Began), strings.Compare(a.Key, b.Key))
	})
	return all
}

// Refused lists the records that were not read when the journal was opened, by
// file. Whoever knows what they meant can remove them while the driver is stopped.
func (j *Journal) Refused() []*RecordError {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []*RecordError
	for _, e := range j.refused {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *RecordError) int { return strings.Compare(a.File, b.File) })
	return all
}
