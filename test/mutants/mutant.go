package mutants

import (
	"fmt"
	"slices"
)

// Class says what kind of fault a mutant has.
type Class string

// The classes.
const (
	Code        Class = "code"        // a wrong status code, or a field that nobody checks
	Concurrency Class = "concurrency" // calls that meet, deadlines, restarts
	Data        Class = "data"        // what users wrote, or may write
	Leak        Class = "leak"        // something is left behind
	Secret      Class = "secret"      // something is told
	Other       Class = "other"       // everything else
	Valid       Class = "valid"       // no fault: unusual, and within the spec
)

// Base is the storage below the driver.
type Base uint8

// The storages.
const (
	// Mem is package mem: every controller RPC, directories on the node. It forgets
	// with its process.
	Mem Base = iota
	// Loop is package loopfile: loop devices, file systems, raw block; it is there
	// after a restart.
	Loop
)

// String is its name in tables.
func (b Base) String() string {
	if b == Loop {
		return "loop"
	}
	return "mem"
}

// Mutant is one switch of the driver.
type Mutant struct {
	Name    string
	Clauses []string // that it breaks, as in testdata/clauses.tsv; none of a Valid one
	Class   Class
	Does    string
	Base    Base
	Block   bool // it is to be seen with raw block volumes
	Unsure  bool // a driver without a fault can look the same: WARN is what a check may say
	Install func(r *Rig)
}

// Reference is the driver without a fault.
func Reference(b Base) Mutant {
	return Mutant{Name: "reference-" + b.String(), Class: Valid, Does: "the driver without a fault", Base: b, Install: func(*Rig) {}}
}

// All are the mutants, without the valid ones.
func All() []Mutant {
	return slices.Concat(
		codesOfCreate(), codesOfVolumes(), codesOfLists(), codesOfSnapshots(), codesOfNode(), fields(),
		concurrency(), restarts(), data(), leaks(), secrets(),
		identity(), creates(), names(), sizes(), topology(), attach(), lists(), capacity(), snapshots(),
		groups(), metadata(), health(), modify(), nodes(), stats(), limits(), conditions(), clients(), pods(), classes(),
	)
}

// ByName finds a mutant, a variant or a reference.
func ByName(name string) (Mutant, error) {
	all := slices.Concat(All(), Variants(), []Mutant{Reference(Mem), Reference(Loop)})
	if i := slices.IndexFunc(all, func(m Mutant) bool { return m.Name == name }); i >= 0 {
		return all[i], nil
	}
	return Mutant{}, fmt.Errorf("no mutant %q", name)
}
