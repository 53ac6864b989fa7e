package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// table is what became of each flow with each driver.
var table struct {
	sync.Mutex
	flows, drivers []string
	cells          map[[2]string]string
}

// note keeps a result; flows and drivers stand in the order of their first.
func note(flow, driver, result string) {
	table.Lock()
	defer table.Unlock()
	if table.cells == nil {
		table.cells = map[[2]string]string{}
	}
	table.flows = appendNew(table.flows, flow)
	table.drivers = appendNew(table.drivers, driver)
	table.cells[[2]string{flow, driver}] = result
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func passed(d time.Duration) string { return fmt.Sprintf("pass (%.1f s)", d.Seconds()) }

// tableFile names a file that the table is kept in, for printTables.
const tableFile = "CSIKIT_KUBERNETES_TABLE"

// saved is a table as JSON.
type saved struct {
	Flows, Drivers []string
	Cells          []cell
}

type cell struct{ Flow, Driver, Result string }

// saveTable keeps the table.
func saveTable(path string) error {
	s := saved{table.flows, table.drivers, nil}
	for k, r := range table.cells {
		s.Cells = append(s.Cells, cell{k[0], k[1], r})
	}
	b, err := json.Marshal(s)
	return errors.Join(err, os.WriteFile(path, b, 0o644))
}

// addTable adds a table that a run has kept; one that was ended has none.
func addTable(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s saved
	if err := errors.Join(err, json.Unmarshal(b, &s)); err != nil {
		return err
	}
	for _, f := range s.Flows {
		table.flows = appendNew(table.flows, f)
	}
	for _, d := range s.Drivers {
		table.drivers = appendNew(table.drivers, d)
	}
	for _, c := range s.Cells {
		note(c.Flow, c.Driver, c.Result)
	}
	return nil
}

// printTables prints the tables of runs as one, and tells whether that is everything:
// each flow of each driver, passed or with a reason not to be run, and no flow or driver
// with nothing but reasons.
func printTables(paths []string) int {
	for _, path := range paths {
		if err := addTable(path); err != nil {
			fmt.Println("table:", err)
			return 1
		}
	}
	all := append(hostVariants(), vmVariants()...)
	noteSmoke(all[1:])
	show()
	passes := map[string]bool{}
	lacks := lacking(all[0], smoke, passes)
	for _, v := range all {
		lacks = append(lacks, lacking(v, v.flows, passes)...)
	}
	for _, f := range slices.Concat(smoke, flows) {
		if !passes[f.name] {
			lacks = append(lacks, f.name+": passed with no driver")
		}
	}
	for _, v := range all {
		if !passes[v.name] {
			lacks = append(lacks, v.name+": passed no flow")
		}
	}
	for _, l := range lacks {
		fmt.Println("kubernetes: not whole:", l)
	}
	return min(len(lacks), 1)
}

// noteSmoke: these drivers have the flows.
func noteSmoke(variants []variant) {
	for _, v := range variants {
		for _, f := range smoke {
			note(f.name, v.name, "- it is of steps that the flows have")
		}
	}
}

// lacking are the flows that neither passed nor have a reason; passes learns of flows
// and drivers that passed.
func lacking(v variant, flows []flow, passes map[string]bool) (lacks []string) {
	for _, f := range flows {
		switch result := table.cells[[2]string{f.name, v.name}]; {
		case strings.HasPrefix(result, "pass"):
			passes[f.name], passes[v.name] = true, true
		case !strings.HasPrefix(result, "- "):
			lacks = append(lacks, fmt.Sprintf("%s, %s: %q", v.name, f.name, result))
		}
	}
	return lacks
}

// printTable prints flow by driver; it is false when the table could not be kept.
func printTable() bool {
	table.Lock()
	defer table.Unlock()
	if len(table.flows) == 0 {
		return true
	}
	if path := os.Getenv(tableFile); path != "" {
		if err := saveTable(path); err != nil {
			fmt.Println("table:", err)
			return false
		}
	}
	show()
	return true
}

func show() {
	fmt.Printf("\n| flow | %s |\n|---|%s\n", strings.Join(table.drivers, " | "), strings.Repeat("---|", len(table.drivers)))
	for _, f := range table.flows {
		row := []string{f}
		for _, d := range table.drivers {
			cell := table.cells[[2]string{f, d}]
			if cell == "" {
				cell = "not run"
			}
			row = append(row, cell)
		}
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
	fmt.Println()
}
