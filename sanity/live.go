package sanity

import (
	"encoding/json"
	"io"

	"github.com/onsi/ginkgo/v2"
)

// liveFD is the descriptor by which the child tells of each spec: its stdout
// is ginkgo's.
const liveFD = 3

// event is a spec that begins, or one that has ended.
type event struct {
	Begin string `json:",omitempty"`
	End   *spec  `json:",omitempty"`
}

// tell has the child write an event at the beginning and the end of each spec.
func tell(w io.Writer) {
	out := json.NewEncoder(w)
	// Nobody who listens any more is no reason to fail: the report has it all.
	ginkgo.ReportBeforeEach(func(r ginkgo.SpecReport) {
		_ = out.Encode(event{Begin: specName(&r)})
	})
	ginkgo.ReportAfterEach(func(r ginkgo.SpecReport) {
		s := newSpec(&r)
		_ = out.Encode(event{End: &s})
	})
}

// listen reads the child's events until its end.
func listen(r io.Reader, cfg *Config, to Listener) {
	in := json.NewDecoder(r)
	for {
		var e event
		if in.Decode(&e) != nil {
			break
		}
		switch {
		case e.End != nil:
			to.End(e.End.result(cfg))
		case e.Begin != "":
			to.Begin(csiSanity + "/" + e.Begin)
		}
	}
	_, _ = io.Copy(io.Discard, r) // a writer must not block
}
