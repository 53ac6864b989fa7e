package check

import (
	"slices"
	"strings"
)

// advice are the clauses that say SHOULD or MAY: who breaks those alone is warned.
const advice = "" +
	"GEN-03 GEN-12 PR-07 PR-08 PR-13 PR-14 PR-16 PR-17 PR-18 ID-03 ID-07 CV-03 " +
	"CV-41 CV-43 DV-04 CP-15 CP-17 CP-19 CU-03 LH-04 GH-02 CG-02 GC-07 CS-05 " +
	"CS-11 CS-19 DS-06 GS-02 CE-02 NS-13 NP-11 NP-12 NP-13 NP-16 NH-02 NE-02 " +
	"NE-09 NE-10 NE-11 GV-05 GV-12 GV-15 GV-17"

// onlyAdvice tells whether none of the clauses is a MUST.
func onlyAdvice(ids []string) bool {
	all := strings.Fields(advice)
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(all, id) })
}
