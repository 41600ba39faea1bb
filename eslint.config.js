import js from "@eslint/js";
import globals from "globals";
import noUnsanitized from "eslint-plugin-no-unsanitized";

/** House limits, as those of Python in `tests/unit/structure/test_house_limits.py`. */
const limits = {
  "max-lines": ["error", 400],
  "max-lines-per-function": ["error", 50],
  "max-params": ["error", 7],
  "max-len": ["error", { code: 120, ignoreUrls: true, ignoreRegExpLiterals: true }],
};

/** Logs are hostile: nothing that they say may become markup or code. */
const safety = {
  "no-eval": "error",
  "no-implied-eval": "error",
  "no-new-func": "error",
  "no-script-url": "error",
};

export default [
  { ignores: ["src/ci_eventstore/web/page/vendor/**", "build/**", "dist/**", ".venv/**", "docs/**"] },
  js.configs.recommended,
  noUnsanitized.configs.recommended,
  {
    files: ["**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      ...limits,
      ...safety,
      eqeqeq: "error",
      "no-control-regex": "off",
      "no-implicit-globals": "error",
      "no-shadow": "error",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["tests/page/**/*.js", "eslint.config.js"],
    languageOptions: { globals: globals.node },
    rules: { "max-lines-per-function": "off" },
  },
];
