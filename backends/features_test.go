package backends

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// bare has the core of both halves and nothing else.
type bare struct{}

func (bare) Volume(context.Context, VolumeRequest) (*Volume, error)             { return nil, nil }
func (bare) FindVolume(context.Context, CreateVolumeRequest) (*Volume, error)   { return nil, nil }
func (bare) CreateVolume(context.Context, CreateVolumeRequest) (*Volume, error) { return nil, nil }
func (bare) DeleteVolume(context.Context, DeleteVolumeRequest) error            { return nil }
func (bare) OpenVolume(context.Context, OpenVolumeRequest) (*Source, error)     { return nil, nil }
func (bare) CloseVolume(context.Context, CloseVolumeRequest) error              { return nil }

// able can grow, is ready, and knows where the node is.
type able struct {
	bare
	name string
}

func (*able) ExpandVolume(context.Context, ExpandVolumeRequest) (int64, error) { return 0, nil }
func (*able) NodeExpandVolume(context.Context, NodeExpandVolumeRequest) error  { return nil }
func (*able) Probe(context.Context) error                                      { return nil }
func (*able) NodeTopology(context.Context) (Segments, error)                   { return nil, nil }

// modest takes back one ability of each half.
type modest struct{ able }

func (*modest) FilterController(f *ControllerFeatures) { f.Expander = nil }
func (*modest) FilterNode(f *NodeFeatures)             { f.NodeExpander = nil }

// wrapper embeds the interfaces, and so hides what else the value can do; its
// filters hand it on.
type wrapper struct {
	Controller
	Node
}

type forwarding struct{ wrapper }

func (w forwarding) FilterController(f *ControllerFeatures) { *f = DetectController(w.Controller) }
func (w forwarding) FilterNode(f *NodeFeatures)             { *f = DetectNode(w.Node) }

// set names the fields of a features struct that are not nil.
func set(features any) []string {
	v := reflect.ValueOf(features)
	names := []string{}
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			names = append(names, v.Type().Field(i).Name)
		}
	}
	return names
}

func TestDetect(t *testing.T) {
	a := &able{}
	for _, tt := range []struct {
		name             string
		c                Controller
		n                Node
		controller, node []string
	}{
		{"nil", nil, nil, []string{}, []string{}},
		{"typed nil", (*able)(nil), (*able)(nil), []string{"Expander", "Prober"}, []string{"NodeExpander", "TopologyReporter", "Prober"}},
		{"bare", bare{}, bare{}, []string{}, []string{}},
		{"able", a, a, []string{"Expander", "Prober"}, []string{"NodeExpander", "TopologyReporter", "Prober"}},
		{"filtered", &modest{}, &modest{}, []string{"Prober"}, []string{"TopologyReporter", "Prober"}},
		{"embedded", wrapper{a, a}, wrapper{a, a}, []string{}, []string{}},
		{"forwarded", forwarding{wrapper{a, a}}, forwarding{wrapper{a, a}}, []string{"Expander", "Prober"}, []string{"NodeExpander", "TopologyReporter", "Prober"}},
		{"forwarded and filtered", forwarding{wrapper{&modest{}, &modest{}}}, forwarding{wrapper{&modest{}, &modest{}}}, []string{"Prober"}, []string{"TopologyReporter", "Prober"}},
		{"value of a pointer's methods", bare{}, able{}, []string{}, []string{}},
	} {
		if got := set(DetectController(tt.c)); !slices.Equal(got, tt.controller) {
			t.Errorf("%s: controller can %q, want %q", tt.name, got, tt.controller)
		}
		if got := set(DetectNode(tt.n)); !slices.Equal(got, tt.node) {
			t.Errorf("%s: node can %q, want %q", tt.name, got, tt.node)
		}
	}
}

func TestDetectGivesTheValueItself(t *testing.T) {
	a := &able{name: "this one"}
	if got := DetectController(a).Expander.(*able); got != a {
		t.Errorf("got %v", got)
	}
	if got := DetectNode(a).Prober.(*able); got != a {
		t.Errorf("got %v", got)
	}
}

// source is what the package declares and documents.
type source struct {
	optional []string // exported interfaces, less the core, filters and Activity
	table    []string // first column of the table in doc.go
	rest     []string // "The rest (...)" in doc.go
}

func readSource(t *testing.T) source {
	t.Helper()
	var s source
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var doc string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if name == "doc.go" {
			doc = f.Doc.Text()
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if ts, ok := n.(*ast.TypeSpec); ok {
				if _, ok := ts.Type.(*ast.InterfaceType); ok && ts.Name.IsExported() {
					s.optional = append(s.optional, ts.Name.Name)
				}
			}
			return true
		})
	}
	s.optional = slices.DeleteFunc(s.optional, func(n string) bool {
		return slices.Contains([]string{"Controller", "Node", "ControllerFilter", "NodeFilter", "Activity"}, n)
	})
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+) {2,}\S`).FindAllStringSubmatch(doc, -1) {
		if m[1] != "interface" && m[1] != "Controller" {
			s.table = append(s.table, m[1])
		}
	}
	m := regexp.MustCompile(`The rest \(([\w,\s]+)\)`).FindStringSubmatch(doc)
	if m == nil {
		t.Fatal("doc.go does not list the rest")
	}
	s.rest = regexp.MustCompile(`\w+`).FindAllString(m[1], -1)
	return s
}

func fieldNames(t *testing.T, features any) []string {
	t.Helper()
	var names []string
	for f := range reflect.TypeOf(features).Fields() {
		if f.Name != f.Type.Name() {
			t.Errorf("field %s is a %s: detection by a filter would mislead", f.Name, f.Type)
		}
		names = append(names, f.Name)
	}
	return names
}

// Every optional interface is detected by exactly one field, and documented once.
func TestEveryOptionalInterface(t *testing.T) {
	s := readSource(t)
	if len(s.optional) < 20 || len(s.table) < 15 || len(s.rest) < 5 {
		t.Fatalf("read too little: %+v", s)
	}
	fields, documented := map[string]int{}, map[string]int{}
	for _, n := range slices.Concat(fieldNames(t, ControllerFeatures{}), fieldNames(t, NodeFeatures{})) {
		fields[n]++
	}
	for _, n := range slices.Concat(s.table, s.rest) {
		documented[n]++
	}
	for _, n := range s.optional {
		want := 1
		if n == "Prober" {
			want = 2 // either half may have one
		}
		if fields[n] != want {
			t.Errorf("%s has %d fields in the features, want %d", n, fields[n], want)
		}
		if documented[n] != 1 {
			t.Errorf("%s stands in doc.go %d times", n, documented[n])
		}
	}
	for _, n := range slices.Concat(slices.Collect(maps.Keys(fields)), slices.Collect(maps.Keys(documented))) {
		if !slices.Contains(s.optional, n) {
			t.Errorf("%s is no optional interface of the package", n)
		}
	}
}
