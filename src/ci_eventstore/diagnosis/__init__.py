"""What is wrong with a store and its servers, or soon will be: looks at them, and rules that say what to do."""
