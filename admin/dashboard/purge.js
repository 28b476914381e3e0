// Purging the cache.
import { ask } from "./dialog.js";
import { post } from "./api.js";

export function purge(changed) {
  ask({
    title: "Purge the cache?", body: "What is purged is asked for from the servers again.", ok: "Purge", danger: true,
    fields: [
      { name: "what", label: "What", options: [["url", "one URL"], ["prefix", "all below host/path"], ["host", "all of a host"], ["tag", "all with a tag"], ["all", "everything"]] },
      { name: "which", label: "Which", placeholder: "https://example.com/users/42" },
      { name: "soft", label: "How", options: [["", "removed"], ["true", "counted as stale"]] },
    ],
    act: async ({ what, which, soft }) => {
      await post("/purge", { [what]: what === "all" ? "true" : which, ...(soft && { soft }) });
      await changed();
      return "Purged";
    },
  });
}
