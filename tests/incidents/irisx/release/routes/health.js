module.exports = ({ version, opened }) => ({
  status: opened.length === 3 ? "healthy" : "degraded",
  version,
  opened,
});
