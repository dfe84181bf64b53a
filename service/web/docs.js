// The service speaks OpenAPI 3.1; this Swagger UI (4.15) shows 3.0 and refuses the newer number,
// though it displays the content well. So the page alone sees the older number.
fetch("/openapi.json")
  .then((response) => response.json())
  .then((spec) => {
    SwaggerUIBundle({
      spec: { ...spec, openapi: "3.0.3" },
      dom_id: "#swagger-ui",
      deepLinking: true,
      validatorUrl: null,
    });
  });
