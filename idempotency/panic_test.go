package idempotency

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
)

func TestPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"panic":  func() { panic("boom") },
		"goexit": runtime.Goexit,
		"nil":    func() { panic(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, r *rig) {
				goOn := make(chan struct{})
				var errs [2]error
				for i := range errs {
					go func() {
						_, errs[i] = Do(t.Context(), r.table, op("a", "x"), func(context.Context) (int, error) {
							<-goOn
							f()
							return 0, nil
						})
					}()
				}
				synctest.Wait()
				close(goOn)
				synctest.Wait()
				for _, err := range errs {
					p, ok := errors.AsType[*PanicError](err)
					if !ok || p.Name != "a" {
						t.Fatalf("err = %v", err)
					}
					if name == "panic" && (p.Value != "boom" || !strings.Contains(string(p.Stack), "TestPanic")) {
						t.Errorf("value %v, stack %s", p.Value, p.Stack)
					}
				}
				r.mustBeEmpty()
			})
		})
	}
}

func TestObserverMayPanicAndUseTheTable(t *testing.T) {
	var table *Table
	seen := 0
	table = NewTable(&Options{Observer: func(Event) {
		seen++
		table.Running()
		panic("observer")
	}})
	if _, err := Do(t.Context(), table, op("a", "x"), func(context.Context) (int, error) { return 1, nil }); err != nil {
		t.Error(err)
	}
	if table.Shutdown(t.Context()); seen == 0 {
		t.Error("observer not called")
	}
}
